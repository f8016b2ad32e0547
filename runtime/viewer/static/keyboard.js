// Keys for everything that a hand on the keyboard wants; they leave alone what has keys of its own.

const OPACITY_STEP = 5;

/**
 * Listen to keys.
 *
 * @param actions what they do: pause, view(name), snapshot, opacity(change), source, full, theme, help.
 */
export function listenToKeys(actions) {
  const keys = {
    " ": () => actions.pause(),
    1: () => actions.view("original"),
    2: () => actions.view("overlay"),
    3: () => actions.view("mask"),
    s: () => actions.snapshot(),
    n: () => actions.source(),
    f: () => actions.full(),
    t: () => actions.theme(),
    "?": () => actions.help(),
    ArrowRight: () => actions.opacity(OPACITY_STEP),
    ArrowUp: () => actions.opacity(OPACITY_STEP),
    ArrowLeft: () => actions.opacity(-OPACITY_STEP),
    ArrowDown: () => actions.opacity(-OPACITY_STEP),
  };
  document.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = keys[key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey || hasOwnUse(event.target, key)) return;
    event.preventDefault();
    if (!event.repeat || key.startsWith("Arrow")) action();
  });
  // A button that was clicked by a pointer keeps the focus, and would take the next space for another click.
  document.addEventListener("click", (event) => {
    const clicked = event.detail > 0 && event.target.closest?.("button, input[type=radio], input[type=checkbox]");
    if (clicked && !clicked.closest("dialog")) clicked.blur();
  });
}

/** Whether the focused element does something by itself with this key. */
function hasOwnUse(target, key) {
  if (target.closest("dialog[open], select")) return true;
  if (key === " ") return target.matches("button, input[type=checkbox], input[type=radio]");
  if (key === "ArrowUp" || key === "ArrowDown") {
    // Lists that scroll take the arrows that scroll them.
    if (target.closest("[tabindex]") || target === document.body) return scrolls(target);
  }
  return key.startsWith("Arrow") && target.matches("input");
}

function scrolls(target) {
  const box = target === document.body ? document.scrollingElement : target.closest("[tabindex]");
  return box.scrollHeight > box.clientHeight + 1;
}
