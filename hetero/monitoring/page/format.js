// Numbers as a person reads them. What is not known is a dash.

const NONE = "–";
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const COUNTS = ["", "k", "M", "G", "T"];

/** 0.4567 -> "0.4567", 5.467051 -> "5.467". */
export function plain(value, digits = 4) {
  if (!known(value)) return NONE;
  return Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-4)
    ? value.toExponential(2)
    : Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
}

/** 758.2 -> "758", 12345 -> "12.3k". */
export function count(value) {
  return known(value) ? scaled(value, 1000, COUNTS, 10000, "") : NONE;
}

export function bytes(value) {
  return known(value) ? scaled(value, 1024, BYTES, 1024, " ") : NONE;
}

export function percent(share, digits = 1) {
  return known(share) ? `${(100 * share).toFixed(digits)}%` : NONE;
}

/** 0.0123 -> "12.3 ms", 5.4 -> "5.40 s". */
export function seconds(value) {
  if (!known(value)) return NONE;
  if (value >= 100) return duration(value);
  if (value === 0) return "0 s";
  return value >= 1 ? `${value.toPrecision(3)} s` : `${Number((value * 1000).toPrecision(3))} ms`;
}

/** 3725 -> "1 h 2 min". */
export function duration(value) {
  if (!known(value)) return NONE;
  const whole = Math.round(value);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Unix seconds as the time of day here. */
export function clock(unix) {
  return known(unix) ? new Date(unix * 1000).toLocaleTimeString("en-GB") : NONE;
}

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function scaled(value, base, units, from, gap) {
  let unit = 0;
  if (Math.abs(value) >= from) {
    while (Math.abs(value) >= base && unit < units.length - 1) {
      value /= base;
      unit += 1;
    }
  }
  const text = unit === 0 && Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : digits3(value);
  return `${text}${units[unit] ? gap + units[unit] : ""}`;
}

function digits3(value) {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}
