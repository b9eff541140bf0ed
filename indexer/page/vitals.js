/** The running system in the masthead: alive or not, what it knows, the generation in service. */

import { element } from "./element.js";
import { counted, dateText, spanText, wholeNumber } from "./words.js";

const STATES = { live: "live", behind: "catching up", away: "no answer" };

export class Vitals {
  /** `list` is a <dl>. */
  constructor(list) {
    this.list = list;
    this.last = null; // events and performance.now() of the status before
  }

  /** `status` of the API, or null when it gave none; `state` is a key of STATES. */
  show(status, state) {
    const isRead = this.list.contains(document.activeElement);
    this.list.replaceChildren(
      vital("state", "State", STATES[state], lagText(status), state),
      ...(status ? [this.events(status.events_accepted), ...known(status)] : []),
    );
    if (isRead) this.list.querySelector("a")?.focus(); // the only thing here that has a focus
  }

  events(accepted) {
    const now = { accepted, atMs: performance.now() };
    const { last } = this;
    this.last = now;
    const perSecond = last && ((accepted - last.accepted) * 1_000) / (now.atMs - last.atMs);
    const flow = perSecond >= 0.5 ? `+${wholeNumber(Math.round(perSecond))}/s` : "";
    return vital("events", "Events", wholeNumber(accepted), flow);
  }
}

function known({ view, clock, now_ms, generation, fit }) {
  return [
    vital("customers", "Customers", wholeNumber(view.users)),
    // Replayed events bring their own time, which is then "now" for every answer.
    clock === "stream" && now_ms > 0 ? vital("now", "Stream time", dateText(now_ms)) : null,
    generation
      ? vital(
          "generation",
          "Generation",
          generation.report ? reportOf(generation.name) : generation.name,
          `${generation.model}, ${spanText(Date.now() - generation.created_ms)} old`,
        )
      : vital("generation", "Generation", "none yet"),
    fit
      ? vital("fit", `Fit of ${fit.model}`, fitText(fit), spanText(Date.now() - fit.began_ms))
      : null,
  ].filter(Boolean);
}

/** How far the trainer is with the next generation. */
function fitText({ stage, done, total }) {
  return total > 1 ? `${stage} ${Math.floor((100 * done) / total)} %` : stage;
}

/** The generation's name, leading to the page about how good it was found to be. */
function reportOf(name) {
  const address = `/v1/generations/${encodeURIComponent(name)}/report.html`;
  return element("a", { href: address, title: "How good it was found to be" }, name);
}

function lagText(status) {
  const lag = Object.values(status?.view.lag_messages ?? {}).reduce((sum, one) => sum + one, 0);
  return lag ? `${counted(lag, "message")} behind` : "";
}

function vital(name, label, value, note = "", state = null) {
  return element(
    "div",
    { class: "vital", "data-vital": name, "data-state": state },
    element("dt", {}, label),
    element("dd", {}, value, note ? element("small", {}, note) : null),
  );
}
