// What this tab looks at. Kept for the tab alone, so that it outlives a reload and two tabs do not disturb each other.

const KEY = "sfpp-view";
const VIEWS = ["original", "overlay", "mask"];
// Widths that are asked for: few of them, since pages that ask for the same share every picture.
const WIDTHS = [320, 480, 640, 960, 1280, 1600, 1920, 2560, 3840];

// What is null depends on the task and the classes, and is decided when they are known.
const DEFAULTS = { source: "", view: "overlay", opacity: null, hidden: [], seenOnly: null, format: "png" };

export const settings = { ...DEFAULTS, ...stored(), playing: true };

/** Remember the settings for a reload of this tab. */
export function remember() {
  const { playing, ...kept } = settings;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // Then they last as long as the page does.
  }
}

/** The message that tells the server what to show. */
export function pageView(width) {
  const { source, view, opacity, hidden, playing } = settings;
  return { type: "view", source, view, opacity, hidden, width, playing, visible: !document.hidden };
}

/** The width of pictures for a screen of so many pixels, at most `most`. */
export function widthFor(pixels, most) {
  return Math.min(WIDTHS.find((width) => width >= pixels) ?? most, most);
}

/** The largest width: what the page's own address asks for with ?width=, else what the server says. */
export function widthLimit(hello) {
  const asked = Number.parseInt(new URLSearchParams(location.search).get("width"), 10);
  return asked > 0 ? Math.min(asked, hello.largestWidth) : hello.width;
}

/** The address of a snapshot of what is seen; `client` names the page whose paused frame it is. */
export function snapshotAddress(client) {
  const { source, view, opacity, hidden, format, playing } = settings;
  const query = new URLSearchParams({ source, view, opacity, hidden: hidden.join(","), format });
  if (!playing) query.set("client", client);
  return `snapshot?${query}`;
}

function stored() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY)) ?? {};
    return VIEWS.includes(found.view) && Array.isArray(found.hidden) ? found : {};
  } catch {
    return {};
  }
}
