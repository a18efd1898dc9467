// Loss and throughput over the steps. Points come as they are made; what is drawn is thinned, never averaged.

import { LineChart } from "./chart.js";
import { heading, html, legend } from "./dom.js";
import { count, plain } from "./format.js";

const MOST_POINTS = 6000;

export class Curves {
  constructor(loss, throughput) {
    this.points = [];
    this.evaluations = []; // [step, validation loss]
    this.pools = [];
    this.order = []; // the names of the pools as the points have them
    this.key = html("div", {});
    this.lossKey = html("div", {});
    const [lossPlace, ratePlace] = [html("div", {}), html("div", {})];
    loss.append(heading("Loss", this.lossKey), lossPlace);
    throughput.append(heading("Tokens per second", this.key), ratePlace);
    this.loss = new LineChart(lossPlace, { label: "loss by step", format: (value) => plain(value) });
    this.rate = new LineChart(ratePlace, { label: "tokens per second by step", format: count, fromZero: true });
  }

  /** `reset` starts over; a point is [step, loss, tokens/s, then of each of `pools` its capacity and tokens/s]. */
  add({ reset, pools, points }) {
    if (reset) this.points = [];
    this.order = pools;
    this.points.push(...points);
    if (this.points.length > MOST_POINTS) this.points = this.points.filter((_, index) => index % 2 === 0);
  }

  name(pools) {
    this.pools = pools;
    const entries = pools.map(({ name, color, emulated }) => [
      `line-pool pool-${color}`,
      emulated ? `${name} (emulated)` : name,
    ]);
    this.key.replaceChildren(legend([["line-job", "job"], ...entries, ["line-capacity", "capacity"]]));
  }

  draw() {
    const validation = this.#evaluated();
    const entries = [
      ["line-loss", "training"],
      [validation.kind, "validation"],
    ];
    this.lossKey.replaceChildren(validation.steps.length ? legend(entries) : "");
    this.loss.show([this.#line("loss", "line-loss", 1), validation]);
    this.rate.show([this.#line("job", "line-job", 2), ...this.pools.flatMap((pool) => this.#pool(pool))]);
  }

  #pool({ name, color }) {
    const place = 3 + 2 * this.order.indexOf(name);
    return [
      this.#line(name, `line-pool pool-${color}`, place + 1),
      this.#line(`${name} capacity`, `line-pool line-capacity pool-${color}`, place),
    ];
  }

  #line(name, kind, place) {
    const values = this.points.map((point) => point[place] ?? null);
    return { name, kind, steps: this.points.map(([step]) => step), values };
  }

  #evaluated() {
    const [steps, values] = [0, 1].map((place) => this.evaluations.map((evaluation) => evaluation[place]));
    return { name: "validation loss", kind: "line-validation", steps, values };
  }
}
