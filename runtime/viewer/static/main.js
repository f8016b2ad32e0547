// Puts the page together: what the server says goes to the page's parts, and what they are told goes to the server.

import { Charts, figure } from "./charts.js";
import { Connection } from "./connection.js";
import { listenToKeys } from "./keyboard.js";
import { Legend } from "./legend.js";
import { Events, Sources } from "./lists.js";
import { Picture } from "./picture.js";
import { remember, settings, snapshotAddress, widthFor, widthLimit, pageView } from "./settings.js";

const at = (id) => document.getElementById(id);

let hello = null;
let source = "";
let connected = "connecting";
let retryAt = 0;
let stillFor = null; // seconds without a new frame, once that is too long
let sentWidth = 0;

const charts = new Charts();
const picture = new Picture(() => hello && width() !== sentWidth && sendView());
const legend = new Legend(settings, changed);
const sources = new Sources(chooseSource);
const events = new Events();
const connection = new Connection({ hello: begin, status: update, picture: show, state: tell });

// What comes from the server.

function begin(message) {
  hello = message;
  at("title").textContent = at("title").title = message.title;
  showSelfTest(message.selfTest);
  at("mask-name").textContent = message.task === "pose" ? "Skeletons" : "Mask";
  at("stop").hidden = !message.canStop;
  // Colors cover what is below them; skeletons leave it free.
  settings.opacity ??= message.task === "pose" ? 100 : 50;
  legend.build(message.legend, message.task !== "pose");
  showSettings();
  document.body.classList.add("ready"); // until now the lists were empty, and would have grown before one's eyes
  charts.clear(message.keptSeconds);
  events.clear();
  sendView();
}

function update(message) {
  if (message.source !== source) {
    source = message.source;
    charts.clear();
    document.title = source ? `${source} · sfpp viewer` : "sfpp viewer";
  }
  const facts = message.sources.find((each) => each.name === source);
  stillFor = facts && !facts.fresh ? facts.idle : null;
  sources.update(message.sources, source);
  legend.update(message.shares);
  charts.add(message.samples, message.now);
  events.add(message.events);
  showFigures(facts);
  showNote();
}

async function show(header, jpeg) {
  await picture.show(header, jpeg);
  const people = header.people === null ? "" : `${header.people} ${header.people === 1 ? "person" : "people"} · `;
  at("frame").textContent = `${people}frame ${header.index} · ${header.width}×${header.height}`;
  if (!at("screen").classList.contains("filled")) {
    at("screen").classList.add("filled");
    showNote();
  }
}

function tell(state, retryMs) {
  connected = state;
  retryAt = performance.now() + retryMs;
  showNote();
}

// What the page shows of it.

function showFigures(facts) {
  const sample = charts.newest;
  const number = (value) => (value === null || value === undefined ? "–" : figure(value));
  at("fps").textContent = stillFor !== null ? "0" : number(facts?.fps);
  at("age-value").textContent = number(sample?.age);
  // Labels that were carried come from an earlier frame, and are older than the one that is shown.
  const carried = sample?.labelsAge > sample?.age;
  at("labels-age").hidden = !carried;
  at("labels-age").textContent = carried ? `labels ${number(sample.labelsAge)} ms` : "";
  at("work").textContent = number(sample && Object.values(sample.stages).reduce((total, each) => total + each, 0));
  at("shown").textContent = settings.playing ? figure(picture.rate()) : "–";
}

// Whether the model is known to answer here as it did when it was exported.
const SELF_TESTS = {
  passed: ["good", "Self-test passed"],
  failed: ["bad", "Self-test failed"],
  damaged: ["bad", "Self-test damaged"],
  "not carried": ["wait", "No self-test"],
  off: ["wait", "Self-test off"],
};

function showSelfTest(found) {
  at("self-test").hidden = false;
  const [tone, text] = SELF_TESTS[found.outcome];
  const failed = found.outcome === "failed" && found.agreement !== null;
  at("self-test").dataset.tone = tone;
  at("self-test").textContent = failed ? `${text}: ${(100 * found.agreement).toFixed(1)} %` : text;
  at("self-test").title = found.detail;
}

const STATES = {
  connecting: ["wait", "Connecting"],
  lost: ["bad", "Connection lost"],
  ended: ["wait", "Ended"],
  refused: ["bad", "Not allowed"],
  blocked: ["bad", "Blocked"],
  busy: ["bad", "Full"],
};

function showNote() {
  let [tone, text] = STATES[connected] ?? ["good", "Live"];
  let note = "";
  const seconds = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
  if (connected === "lost") note = `No connection. Trying again in ${seconds} s`;
  if (connected === "ended") note = "The run has ended";
  if (connected === "blocked") note = "A proxy must pass on Upgrade and Host, or say the host in X-Forwarded-Host";
  if (connected === "refused") note = "The token is not valid. Open the address that the program has printed";
  if (connected === "busy") note = "Too many pages look. Trying again";
  if (connected === "open") {
    if (!settings.playing) [tone, text, note] = ["wait", "Paused", "Paused"];
    else if (stillFor !== null) [tone, text, note] = ["bad", "Still", `No new frame for ${Math.round(stillFor)} s`];
    else if (!at("screen").classList.contains("filled")) note = "Waiting for the first frame";
  }
  at("state").dataset.tone = tone;
  // Written only when it changes: a screen reader speaks every change.
  if (at("state-text").textContent !== text) at("state-text").textContent = text;
  at("note").hidden = !note;
  at("note").textContent = note;
  at("screen").classList.toggle("dim", !["open", "connecting"].includes(connected));
}

function showSettings() {
  for (const radio of document.getElementsByName("view")) radio.checked = radio.value === settings.view;
  at("opacity").value = settings.opacity ?? 50;
  at("opacity").disabled = settings.view !== "overlay";
  at("opacity-value").textContent = `${settings.opacity ?? 50} %`;
  at("format").value = settings.format;
  at("pause").setAttribute("aria-pressed", String(!settings.playing));
  at("pause-text").textContent = settings.playing ? "Pause" : "Continue";
  at("pause-icon").setAttribute("href", settings.playing ? "#icon-pause" : "#icon-play");
}

let toastTimer = 0;
function toast(text) {
  at("toast").textContent = text;
  at("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => at("toast").classList.remove("shown"), 3500);
}

// What people want.

function width() {
  return widthFor(picture.pixels, widthLimit(hello));
}

let viewTimer = 0;
function sendView() {
  clearTimeout(viewTimer);
  viewTimer = 0;
  if (!hello) return;
  sentWidth = width();
  connection.send(pageView(sentWidth));
}

/** Show and send changed settings; a slider that is drawn along changes them faster than anybody looks. */
function changed() {
  showSettings();
  showNote();
  remember();
  viewTimer ||= setTimeout(sendView, 40);
}

function chooseView(view) {
  settings.view = view;
  changed();
}

function changeOpacity(change) {
  settings.opacity = Math.min(100, Math.max(0, settings.opacity + change));
  changed();
}

function chooseSource(name) {
  settings.source = name;
  changed();
}

function pause() {
  settings.playing = !settings.playing;
  changed();
}

async function snapshot() {
  at("snapshot").disabled = true;
  try {
    const answer = await fetch(snapshotAddress(hello?.client ?? ""), { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))?.[1] ?? "snapshot";
    save(await answer.blob(), name);
    toast(`Saved ${name}`);
  } catch (error) {
    toast(`No snapshot: ${error.message}`);
  } finally {
    at("snapshot").disabled = false;
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else at("watch").requestFullscreen?.();
}

async function stopRun() {
  const dialog = at("stop-dialog");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue === "stop") connection.send({ type: "stop" });
}

for (const radio of document.getElementsByName("view")) {
  radio.addEventListener("change", () => chooseView(radio.value));
}
at("opacity").addEventListener("input", () => changeOpacity(Number(at("opacity").value) - settings.opacity));
at("format").addEventListener("change", () => {
  settings.format = at("format").value;
  changed();
});
at("pause").addEventListener("click", pause);
at("snapshot").addEventListener("click", snapshot);
at("full").addEventListener("click", fullScreen);
at("theme").addEventListener("click", () => window.toggleTheme());
at("help").addEventListener("click", () => at("help-dialog").showModal());
at("stop").addEventListener("click", stopRun);
at("full").hidden = !document.fullscreenEnabled;
document.addEventListener("visibilitychange", sendView);
listenToKeys({
  pause,
  view: chooseView,
  snapshot,
  opacity: changeOpacity,
  source: () => chooseSource(sources.after(source)),
  full: fullScreen,
  theme: () => window.toggleTheme(),
  help: () => at("help-dialog").showModal(),
});

showSettings();
setInterval(showNote, 1000);
connection.open();
