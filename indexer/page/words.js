/** Numbers and times as people read them, in the browser's own language and time zone. */

const whole = new Intl.NumberFormat();
const price = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const minute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const SPANS = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1_000],
];

export const wholeNumber = (value) => whole.format(value);
export const priceText = (value) => price.format(value);
export const dateText = (timeMs) => minute.format(new Date(timeMs));

/** "3 hours ago" for less than a month before `nowMs`, the date for anything older. */
export function agoText(timeMs, nowMs) {
  const past = nowMs - timeMs;
  if (past > 30 * 86_400_000) return dateText(timeMs);
  const [unit, span] = SPANS.find(([, size]) => past >= size) ?? ["second", 1_000];
  return relative.format(-Math.max(0, Math.round(past / span)), unit);
}

/** A length of time in its largest unit, as "4 min". */
export function spanText(lengthMs) {
  const [unit, span] = SPANS.find(([, size]) => lengthMs >= size) ?? ["second", 1_000];
  const short = { day: "d", hour: "h", minute: "min", second: "s" }[unit];
  return `${Math.max(0, Math.floor(lengthMs / span))} ${short}`;
}

/** Milliseconds of a measurement: whole ones, from ten seconds on in thousands with a separator. */
export const millisecondsText = (ms) => whole.format(Math.round(ms));

/** "1 event", "2 events". */
export const counted = (count, noun) => `${whole.format(count)} ${noun}${count === 1 ? "" : "s"}`;
