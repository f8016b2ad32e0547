// The sources above the picture, and the list of events.

const EVENTS_SHOWN = 100;
const TONES = {
  lost: "bad",
  "gave-up": "bad",
  "sink-failed": "bad",
  dropped: "warn",
  "size-changed": "warn",
  back: "good",
};
const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

export class Sources {
  #box = document.getElementById("sources");
  #buttons = new Map();
  #onChoice;

  /** @param onChoice told the name of the source that was chosen. */
  constructor(onChoice) {
    this.#onChoice = onChoice;
  }

  /** Show the sources as they stand, and which of them is looked at. */
  update(sources, current) {
    const names = sources.map((source) => source.name);
    if (names.join("\n") !== [...this.#buttons.keys()].join("\n")) this.#build(names);
    for (const { name, fps, idle, fresh } of sources) {
      const { button, rate } = this.#buttons.get(name);
      button.setAttribute("aria-pressed", String(name === current));
      button.dataset.tone = fresh ? "good" : "bad";
      rate.textContent = fresh ? `${fps === null ? "–" : fps.toFixed(1)} fps` : `still for ${Math.round(idle)} s`;
    }
  }

  /** The source after the current one, round and round. */
  after(current) {
    const names = [...this.#buttons.keys()];
    return names[(names.indexOf(current) + 1) % names.length];
  }

  #build(names) {
    this.#buttons.clear();
    for (const name of names) {
      const button = document.createElement("button");
      const rate = span("", "soft figures");
      button.type = "button";
      button.title = name;
      button.append(span("", "dot"), span(name, "name"), rate);
      button.addEventListener("click", () => this.#onChoice(name));
      this.#buttons.set(name, { button, rate });
    }
    this.#box.replaceChildren(...[...this.#buttons.values()].map((each) => each.button));
  }
}

export class Events {
  #list = document.getElementById("events");
  #last = -1;

  /** Add those events that are not listed yet, the newest on top; drops add up to one, as the server counts them. */
  add(events) {
    for (const event of events) {
      if (event.number <= this.#last) continue;
      this.#last = event.number;
      const before = [...this.#list.children].find((item) => item.dataset.source === event.source);
      if (event.kind === "dropped" && before?.dataset.kind === "dropped") before.remove();
      this.#list.prepend(row(event));
    }
    while (this.#list.children.length > EVENTS_SHOWN) this.#list.lastElementChild.remove();
  }

  /** Forget what was listed: the server is another one, and counts anew. */
  clear() {
    this.#last = -1;
    this.#list.replaceChildren();
  }
}

function row({ time_s, kind, source, detail, count }) {
  const item = document.createElement("li");
  Object.assign(item.dataset, { source, kind });
  const when = document.createElement("time");
  const date = new Date(1000 * time_s);
  when.dateTime = date.toISOString();
  when.textContent = date.toLocaleTimeString([], TIME);
  when.className = "soft figures";
  const tag = span(count > 0 ? `${kind} ${count}` : kind, "tag");
  tag.dataset.tone = TONES[kind] ?? "";
  const text = document.createElement("p");
  text.append(span(source, "name"), ` ${detail}`);
  item.append(when, tag, text);
  return item;
}

function span(text, classes) {
  const made = document.createElement("span");
  made.textContent = text;
  made.className = classes;
  return made;
}
