/** The running system in the masthead: alive or not, events accepted, the generation in service. */

import { element } from "./element.js";
import { spanText, wholeNumber } from "./words.js";

const STATES = { live: "live", behind: "catching up", away: "no answer" };

export class Vitals {
  /** `list` is a <dl>. */
  constructor(list) {
    this.list = list;
    this.last = null; // {events, atMs} of the status before
  }

  /** `status` of the API, or null when it gave none; `state` is a key of STATES. */
  show(status, state) {
    const shown = [vital("state", "State", STATES[state], state)];
    if (status) {
      shown.push(this.events(status.events_accepted), generation(status.generation));
    }
    this.list.replaceChildren(...shown);
  }

  events(accepted) {
    const atMs = performance.now();
    const rate = this.last && ((accepted - this.last.accepted) * 1_000) / (atMs - this.last.atMs);
    this.last = { accepted, atMs };
    const flow = rate >= 0.5 ? `+${wholeNumber(Math.round(rate))}/s` : "";
    return vital("events", "Events", wholeNumber(accepted), flow);
  }
}

function generation(serving) {
  if (!serving) return vital("generation", "Generation", "none yet", "");
  const age = `${serving.model}, ${spanText(Date.now() - serving.created_ms)} old`;
  return vital("generation", "Generation", serving.name, age);
}

function vital(name, label, value, note) {
  return element(
    "div",
    { class: "vital", "data-vital": name, "data-state": name === "state" ? note : null },
    element("dt", {}, label),
    element("dd", {}, value, name !== "state" && note ? element("small", {}, note) : null),
  );
}
