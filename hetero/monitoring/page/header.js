// Which run this is, how far it is, and the figures of its last step.

import { figure, fill, html } from "./dom.js";
import { count, duration, percent, plain, seconds } from "./format.js";

const STATES = {
  waiting: "quiet",
  starting: "quiet",
  running: "good",
  silent: "warn",
  finished: "accent",
  failed: "bad",
};

const MODELLED = "Modelled figures, not measurements of hardware";

export function showHeader(place, { run, record, connected }) {
  if (!run) return;
  document.title = `${run.name} · Hetero`;
  const done = record ? record.step + 1 : 0;
  const steps = run.steps ?? done;
  fill(
    place,
    html(
      "div",
      { class: "title" },
      html("span", { class: "brand" }, "Hetero"),
      html("h1", { id: "run-name" }, run.name),
      pill("state", STATES[run.state] ?? "quiet", run.state),
      run.emulated && pill("emulated", "warn", "emulated", MODELLED),
      pill("connection", connected ? "live" : "warn", connected ? "live" : "reconnecting"),
    ),
    run.failure && html("p", { class: "failure", role: "alert" }, run.failure),
    html(
      "div",
      { class: "progress" },
      html("progress", { max: steps || 1, value: done, "aria-label": "steps done" }),
      html(
        "span",
        {},
        figure(record?.step, done.toLocaleString("en"), "step"),
        steps ? ` of ${steps.toLocaleString("en")} steps` : " steps",
        remaining(run),
      ),
    ),
  );
}

export function showFigures(place, { run, record, evaluations }) {
  if (!run) return;
  const [evaluated, validation] = evaluations.at(-1) ?? [];
  const tiles = [
    ["loss", "loss", (value) => (value === null ? "not finite" : plain(value)), "per token"],
    ["eval_loss", "validation loss", plain, `at step ${evaluated}`],
    ["tokens_per_s", "tokens/s", count, run.emulated ? "emulated: modelled" : "all pools together"],
    ["step_s", "step time", seconds, record?.overrun ? "overrun: slower than modelled" : overruns(run)],
    ["goodput", "goodput", percent, "since the start"],
    ["shadow", "shadow error", errorOf, run.shadow && shadowed(run.shadow)],
    ["grad_norm", "gradient norm", plain, record?.skipped ? "step skipped" : ""],
    ["lr", "learning rate", plain, ""],
  ];
  const values = { ...record, eval_loss: validation, shadow: run.shadow?.error };
  fill(
    place,
    ...tiles
      .filter(([key]) => (key !== "eval_loss" || evaluations.length) && (key !== "shadow" || run.shadow))
      .map(([key, words, format, aside]) =>
        html(
          "div",
          { class: "tile" },
          html("span", { class: "what" }, words),
          html("span", { class: "value" }, figure(values[key], format(values[key]), key)),
          html("span", { class: "aside" }, aside),
        ),
      ),
  );
}

const errorOf = (error) => (error === null ? "not finite" : error.toExponential(1));

/** Which stage another pool has computed again, and what it may differ by. */
function shadowed({ place, pool, by, step, tolerance, drifts }) {
  const limit = `${drifts ? "drift: over" : "of"} ${tolerance.toExponential(0)}`;
  return `${limit}, stage ${place} on ${pool} by ${by}, step ${step}`;
}

export function showFooter(place, { run, record }) {
  if (!run) return;
  fill(
    place,
    html("span", {}, run.folder),
    run.emulated &&
      html(
        "span",
        {},
        "Emulated chips: figures of speed are modelled by their datasheets, not measured on hardware",
        record?.link_ratio == null ? "" : `; link ratio ${plain(record.link_ratio, 3)}`,
        ".",
      ),
  );
}

function overruns({ overruns: steps }) {
  return steps ? `${steps} recent overruns` : "";
}

function pill(id, kind, words, title) {
  return html("span", { id, class: `pill ${kind}`, title }, words);
}

function remaining(run) {
  return run.left_s === null ? "" : ` · ${duration(run.left_s)} left`;
}
