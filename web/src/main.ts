/** The page: its tabs, and what makes it work without a network. */
import { codesTab } from "./codes";
import { fileTab } from "./file";
import { liveTab } from "./live";
import { element } from "./page";

const tabs = [...document.querySelectorAll<HTMLButtonElement>("[role=tab]")];

function open(tab: HTMLButtonElement): void {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    element(other.getAttribute("aria-controls") ?? "").hidden = !chosen;
  }
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(i + by + tabs.length) % tabs.length];
    open(next);
    next.focus();
  });
});
fileTab();
liveTab();
codesTab();
if ("serviceWorker" in navigator) void navigator.serviceWorker.register("sw.js").catch(() => null);
