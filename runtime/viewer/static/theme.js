// Dark or light: as the system has it, until somebody chooses. Loaded before the page is painted, so nothing flashes.
"use strict";

(() => {
  const KEY = "sfpp-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser that keeps nothing for pages
    }
  }

  function apply() {
    const theme = chosen() ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new Event("themechange"));
  }

  /** Change to the other one, here and in other tabs, and remember it. */
  window.toggleTheme = () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, other);
    } catch {
      document.documentElement.dataset.theme = other;
      document.dispatchEvent(new Event("themechange"));
      return;
    }
    apply();
  };

  system.addEventListener("change", apply);
  addEventListener("storage", (event) => event.key === KEY && apply());
  apply();
})();
