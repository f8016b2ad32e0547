// The classes: a switch each, its color, and the share of the picture that it covers.

const SMALLEST_SHARE = 0.0005;
// With more classes than this only those are listed that were seen, until somebody asks for all.
const MANY_CLASSES = 32;

export class Legend {
  #list = document.getElementById("legend");
  #seenButton = document.getElementById("seen");
  #rows = [];
  #settings;
  #onChange;

  /** @param onChange told when a class was switched. */
  constructor(settings, onChange) {
    this.#settings = settings;
    this.#onChange = onChange;
    document.getElementById("all").addEventListener("click", () => this.#switchAll(true));
    document.getElementById("none").addEventListener("click", () => this.#switchAll(false));
    this.#seenButton.addEventListener("click", () => {
      settings.seenOnly = !settings.seenOnly;
      this.#listSeen();
      onChange();
    });
  }

  /** List the classes, or of a pose the sides, which have no switches. */
  build(entries, switchable) {
    document.getElementById("legend-title").textContent = switchable ? "Classes" : "Skeletons";
    document.getElementById("legend-tools").hidden = !switchable;
    this.#settings.hidden = this.#settings.hidden.filter((index) => index < entries.length);
    this.#settings.seenOnly ??= entries.length > MANY_CLASSES;
    this.#rows = entries.map((entry, index) => this.#row(entry, index, switchable));
    this.#list.replaceChildren(...this.#rows.map((row) => row.item));
    this.#listSeen();
  }

  /** Show each class's share, 0..1 or null where it is not known. */
  update(shares) {
    shares.forEach((share, index) => {
      const row = this.#rows[index];
      if (!row) return;
      row.share.textContent = share === null ? "" : percent(share);
      row.fill.style.width = `${100 * (share ?? 0)}%`;
      row.item.classList.toggle("absent", !(share >= SMALLEST_SHARE));
      if (share >= SMALLEST_SHARE) row.item.classList.add("was-seen");
    });
  }

  #row({ name, color }, index, switchable) {
    const item = element("li", "", this.#settings.hidden.includes(index) ? "off" : "");
    item.style.setProperty("--class", color);
    const label = element("label");
    const box = element("input");
    Object.assign(box, { type: "checkbox", checked: !item.classList.contains("off"), disabled: !switchable });
    box.setAttribute("role", "switch");
    box.addEventListener("change", () => this.#switch(index, box.checked));
    label.append(box, element("span", name, "name"));
    label.title = name;
    const share = element("span", "", "share figures");
    const bar = element("span", "", "bar");
    const fill = element("span");
    bar.append(fill);
    item.append(label, share, ...(switchable ? [bar] : []));
    return { item, box, share, fill };
  }

  #switch(index, on) {
    const hidden = new Set(this.#settings.hidden);
    if (on) hidden.delete(index);
    else hidden.add(index);
    this.#settings.hidden = [...hidden].sort((a, b) => a - b);
    this.#rows[index].item.classList.toggle("off", !on);
    this.#onChange();
  }

  #switchAll(on) {
    this.#settings.hidden = on ? [] : this.#rows.map((_, index) => index);
    for (const row of this.#rows) {
      row.box.checked = on;
      row.item.classList.toggle("off", !on);
    }
    this.#onChange();
  }

  #listSeen() {
    this.#list.classList.toggle("seen-only", this.#settings.seenOnly);
    this.#seenButton.setAttribute("aria-pressed", String(this.#settings.seenOnly));
  }
}

function percent(share) {
  if (share < SMALLEST_SHARE) return share > 0 ? "<0.1 %" : "–";
  return `${(100 * share).toFixed(1)} %`;
}

function element(tag, text = "", classes = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = classes;
  return made;
}
