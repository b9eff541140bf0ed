/** The gauge: milliseconds from a click to the list that reflects it, and the last ones drawn. */

import { element } from "./element.js";
import { millisecondsText } from "./words.js";

const KEPT = 40;
const SCALE_LEAST_MS = 100;
const WAIT_SHOWN_AFTER_MS = 250;

export class Gauge {
  /** `parts`: the elements root, reading, caption, graph (an <ol>), sums (a <dl>) and key. */
  constructor(parts) {
    this.parts = parts;
    this.measured = []; // {acceptedMs, totalMs}, oldest first
    this.timer = 0;
  }

  get isWaiting() {
    return this.parts.root.dataset.state === "waiting";
  }

  /** A click at `startedMs` (performance.now()) is under way. */
  wait(startedMs, caption) {
    this.parts.root.dataset.state = "waiting";
    this.parts.caption.textContent = caption;
    cancelAnimationFrame(this.timer);
    const tick = () => {
      const waited = performance.now() - startedMs;
      if (waited > WAIT_SHOWN_AFTER_MS) this.parts.reading.value = millisecondsText(waited);
      this.timer = requestAnimationFrame(tick);
    };
    tick();
  }

  /** Says something about a click that goes on waiting. */
  explain(caption) {
    this.parts.caption.textContent = caption;
  }

  /** A click that came to nothing: the last reading stands again. */
  drop(caption) {
    cancelAnimationFrame(this.timer);
    this.parts.root.dataset.state = "failed";
    this.parts.caption.textContent = caption;
    const last = this.measured.at(-1);
    this.parts.reading.value = last ? millisecondsText(last.totalMs) : "–";
  }

  /** The list has changed: `totalMs` since the click, of them `acceptedMs` until Kafka had it. */
  read(acceptedMs, totalMs, caption) {
    cancelAnimationFrame(this.timer);
    this.measured = [...this.measured, { acceptedMs, totalMs }].slice(-KEPT);
    this.parts.root.dataset.state = "read";
    this.parts.reading.value = millisecondsText(totalMs);
    this.parts.caption.textContent = caption;
    this.draw();
  }

  draw() {
    const totals = this.measured.map(({ totalMs }) => totalMs);
    const sorted = [...totals].sort((one, other) => one - other);
    // A single slow click must not flatten all others: the scale ends at 4 medians.
    const median = sorted[Math.floor((sorted.length - 1) / 2)];
    const top = Math.max(SCALE_LEAST_MS, Math.min(sorted.at(-1), median * 4));
    this.parts.key.hidden = false;
    this.parts.graph.dataset.top = `${millisecondsText(top)} ms`;
    this.parts.graph.replaceChildren(...this.measured.map((one) => column(one, top)));
    this.parts.sums.replaceChildren(
      sum("median", median),
      sum("fastest", sorted[0]),
      sum("slowest", sorted.at(-1)),
    );
  }
}

function column({ acceptedMs, totalMs }, top) {
  const text =
    `${millisecondsText(totalMs)} ms: ${millisecondsText(acceptedMs)} until Kafka had the event, ` +
    `${millisecondsText(totalMs - acceptedMs)} until the list reflected it`;
  const made = element("li", { class: "column", title: text });
  const accepted = element("span", { class: "column-accepted" });
  const rest = element("span", { class: "column-rest" });
  const height = Math.min(1, totalMs / top);
  made.style.blockSize = `${height * 100}%`;
  accepted.style.flexGrow = acceptedMs;
  rest.style.flexGrow = Math.max(0, totalMs - acceptedMs);
  made.append(rest, accepted, element("span", { class: "hidden" }, text));
  return made;
}

function sum(name, ms) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, `${millisecondsText(ms)} ms`));
}
