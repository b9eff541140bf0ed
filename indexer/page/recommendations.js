/** The list of recommendations. It changes in place: rows enter, leave and move to their rank. */

import { element, prefersStillness } from "./element.js";
import { takeButtons, titleOf } from "./item.js";
import { sourceKey, sourceLabel } from "./sources.js";

const MOVE = { duration: 420, easing: "cubic-bezier(.2, .8, .2, 1)" };
const REASONS = 2;
const LEAVE = { duration: 260, easing: "ease-in" };

export class Recommendations {
  /** `list` is an <ol>, `key` a <dl>; `onTake(type, item, startedMs)` when an item is taken. */
  constructor(list, key, onTake) {
    this.list = list;
    this.key = key;
    this.onTake = onTake;
    this.rows = new Map(); // item id -> <li>, in the order shown
  }

  clear() {
    this.rows.clear();
    this.list.replaceChildren();
    this.key.replaceChildren();
  }

  /** Shows `items`, best first; returns which ids entered and left, and how many moved. */
  show(items) {
    const before = new Map([...this.rows].map(([id, row]) => [id, row.getBoundingClientRect()]));
    const ranks = new Map([...this.rows.keys()].map((id, rank) => [id, rank]));
    const focused = this.focusedTake();
    const best = items[0]?.score ?? 0;
    const floor = Math.min(0, ...items.map(({ score }) => score));

    const rows = new Map();
    items.forEach((item, rank) => {
      const row = this.rows.get(item.item_id) ?? element("li", { class: "row" });
      const rise = before.size && ranks.has(item.item_id) ? ranks.get(item.item_id) - rank : null;
      const isNew = before.size > 0 && rise === null;
      this.fill(row, item, rank, rise, isNew, (item.score - floor) / (best - floor || 1));
      rows.set(item.item_id, row);
    });
    const left = [...this.rows].filter(([id]) => !rows.has(id));
    const entered = [...rows.keys()].filter((id) => !before.has(id));

    this.rows = rows;
    this.list.replaceChildren(...rows.values());
    this.key.replaceChildren(...sourceKey(items));
    this.restoreFocus(focused);
    if (!prefersStillness()) {
      this.glide(before);
      for (const [id, row] of left) this.seeOff(row, before.get(id));
    }
    const moved = [...rows.keys()].filter((id, rank) => ranks.has(id) && ranks.get(id) !== rank);
    return { entered, left: left.map(([id]) => id), moved: moved.length };
  }

  /** Marks a row as taken until the next list. */
  markTaken(itemId, isTaken) {
    this.rows.get(itemId)?.classList.toggle("is-taken", isTaken);
  }

  fill(row, item, rank, rise, isNew, share) {
    const bar = element("span", { class: "bar-fill" });
    bar.style.inlineSize = `${Math.max(3, Math.min(100, share * 100))}%`;
    const change = isNew ? "in" : rise ? `${rise > 0 ? "↑" : "↓"}${Math.abs(rise)}` : "";
    row.className = isNew ? "row is-new" : "row";
    row.dataset.source = item.source;
    row.dataset.itemId = item.item_id;
    row.replaceChildren(
      element("span", { class: "rank" }, rank + 1),
      element(
        "div",
        { class: "what" },
        element("p", { class: "title" }, titleOf(item)),
        reasons(item),
      ),
      element(
        "div",
        { class: "score" },
        element(
          "p",
          { class: "score-line" },
          sourceLabel(item.source),
          element("span", { class: "change", "aria-hidden": "true" }, change),
          element("span", { class: "score-number", title: "score" }, item.score.toFixed(2)),
        ),
        element("span", { class: "bar", "aria-hidden": "true" }, bar),
      ),
      takeButtons(item, this.onTake),
    );
  }

  /** First-last-invert-play: each row starts where it stood and glides to where it belongs. */
  glide(before) {
    for (const [id, row] of this.rows) {
      const start = before.get(id);
      if (!start) {
        if (before.size) {
          row.animate([{ opacity: 0, transform: "translateX(-12px)" }, { opacity: 1 }], MOVE);
        }
        continue;
      }
      const shift = start.top - row.getBoundingClientRect().top;
      if (shift) {
        row.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], MOVE);
      }
    }
  }

  /** A row that left drifts away where it stood; it is a picture only. */
  seeOff(row, place) {
    const frame = this.list.getBoundingClientRect();
    row.classList.add("is-leaving");
    row.inert = true;
    row.setAttribute("aria-hidden", "true");
    row.style.top = `${place.top - frame.top}px`;
    this.list.append(row);
    row
      .animate([{ opacity: 1 }, { opacity: 0, transform: "translateX(28px)" }], LEAVE)
      .finished.then(() => row.remove(), () => row.remove());
  }

  focusedTake() {
    const button = document.activeElement?.closest("[data-take]");
    const row = button?.closest(".row");
    if (!row || !this.list.contains(row)) return null;
    return { id: row.dataset.itemId, rank: [...this.rows.values()].indexOf(row), take: button.dataset.take };
  }

  /** Focus stays on its item, or goes to the item that took its rank. */
  restoreFocus(focused) {
    if (!focused) return;
    const row = this.rows.get(focused.id) ?? [...this.rows.values()][focused.rank];
    row?.querySelector(`[data-take="${focused.take}"]`).focus({ preventScroll: true });
  }
}

/** The history's items that gave the item its score, those of its own source if it has some. */
function reasons({ because, source }) {
  if (!because?.length) return null;
  const own = because.filter((reason) => reason.source === source);
  const titles = new Set((own.length ? own : because).slice(0, REASONS).map(titleOf));
  return element("p", { class: "because" }, `because of ${[...titles].join(" · ")}`);
}
