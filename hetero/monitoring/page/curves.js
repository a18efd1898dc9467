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
    this.key.replaceChildren(
      legend([
        ["line-job", "job"],
        ...pools.map((pool) => [`line-pool pool-${pool.color}`, pool.emulated ? `${pool.name} (emulated)` : pool.name]),
      ]),
    );
  }

  draw() {
    const steps = this.points.map((point) => point[0]);
    const losses = { name: "loss", kind: "line-loss", steps, values: this.points.map((point) => point[1]) };
    const checked = {
      name: "validation loss",
      kind: "line-validation",
      steps: this.evaluations.map(([step]) => step),
      values: this.evaluations.map(([, loss]) => loss),
    };
    this.lossKey.replaceChildren(
      checked.steps.length
        ? legend([
            ["line-loss", "training"],
            ["line-validation", "validation"],
          ])
        : "",
    );
    this.loss.show([losses, checked]);
    const line = (name, kind, place) => ({
      name,
      kind,
      steps,
      values: this.points.map((point) => point[place] ?? null),
    });
    this.rate.show([
      line("job", "line-job", 2),
      ...this.pools.flatMap(({ name, color }) => {
        const place = 3 + 2 * this.order.indexOf(name);
        return [
          line(name, `line-pool pool-${color}`, place + 1),
          line(`${name} capacity`, `line-pool line-capacity pool-${color}`, place),
        ];
      }),
    ]);
  }
}
