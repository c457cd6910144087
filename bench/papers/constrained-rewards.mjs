/**
 * Constrained rewards on a bandit (specification of policies, section 9; Moskovitz et al. 2023): 200 arms with two correlated
 * rewards, and a quality that is concave in the mean rewards of the policy. Runs with fixed weights give scored checkpoints;
 * their proxy points are the thresholds of runs with multipliers; Nelder and Mead's search looks for thresholds without them.
 *
 * node bench/papers/constrained-rewards.mjs [--seeds 8] [--updates 400]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { cachedSimplexSearch } from '../../dist/src/linalg/cached-simplex.js';
import { weightsOf } from '../../dist/src/policy/reward/multiplier-replay.js';
import {
  divergenceWeight,
  mixAdvantages,
  squashed,
  startMultipliers,
  USUAL_MULTIPLIERS,
  updateMultipliers,
} from '../../dist/src/policy/reward/multipliers.js';
import { proxyPoints } from '../../dist/src/policy/reward/proxy-points.js';
import { drawSimplex, searchThresholds } from '../../dist/src/policy/reward/threshold-search.js';
import { createRandom } from '../../dist/src/random.js';
import { CATEGORY_COLOURS } from '../../dist/src/report/plots/colours.js';
import { contourChart } from '../../dist/src/report/plots/contour-chart.js';
import { plotBytes } from '../../dist/src/report/plots/figure.js';
import { lineChart } from '../../dist/src/report/plots/line-chart.js';

const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '8' }, updates: { type: 'string', default: '600' } },
});
const SEEDS = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const UPDATES = Number(values.updates);
const [ARMS, BATCH, RATE] = [200, 64, 5];
/** Deviation of the sampled divergence about -ln(pi / pi_0), as of a sequence whose tokens are many. */
const DIVERGENCE_NOISE = 1.5;
/** Updates in which the search must reach a point. */
const REACH = 120;
const NAMES = ['first', 'second'];
/** The mean rewards of the highest quality, and its curvature in each of them. */
const OPTIMUM = [0.68, 0.6];
const CURVATURE = [5, 7];
const quality = (rewards) => 1 - rewards.reduce((sum, r, i) => sum + CURVATURE[i] * (r - OPTIMUM[i]) ** 2, 0);

/** Rewards [arms] of both kinds in (0, 1), with a correlation of about 0.5. */
function makeArms(seed) {
  const random = createRandom(seed).fork(1);
  const rewards = NAMES.map(() => new Float64Array(ARMS));
  for (let a = 0; a < ARMS; a++) {
    const common = random.normal();
    for (const column of rewards)
      column[a] = 1 / (1 + Math.exp(-(Math.sqrt(0.5) * common + Math.sqrt(0.5) * random.normal())));
  }
  return rewards;
}

/** A softmax policy over the arms that goes on from update to update. */
function createPolicy(arms, seed) {
  const logits = new Float64Array(ARMS);
  const random = createRandom(seed).fork(2);
  const probabilities = () => {
    const most = Math.max(...logits);
    const weights = logits.map((z) => Math.exp(z - most));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((w) => w / sum);
  };
  return {
    rewards: () => {
      const p = probabilities();
      return arms.map((r) => r.reduce((sum, value, a) => sum + p[a] * value, 0));
    },
    /** One minibatch: `weigh` turns its mean rewards and advantages into one advantage. */
    update(weigh) {
      const p = probabilities();
      const drawn = Int32Array.from({ length: BATCH }, () => {
        let left = random.uniform();
        let a = 0;
        while (a < ARMS - 1 && left >= p[a]) left -= p[a++];
        return a;
      });
      const advantages = arms.map((r) => Float64Array.from(drawn, (a) => r[a]));
      const divergence = Float64Array.from(drawn, (a) => -Math.log(p[a] * ARMS) + DIVERGENCE_NOISE * random.normal());
      const mean = advantages.map((column) => column.reduce((a, b) => a + b, 0) / BATCH);
      const advantage = weigh(mean, divergence, advantages);
      const total = advantage.reduce((a, b) => a + b, 0) / BATCH;
      for (let a = 0; a < ARMS; a++) logits[a] -= RATE * total * p[a];
      drawn.forEach((a, k) => {
        logits[a] += (RATE * advantage[k]) / BATCH;
      });
    },
  };
}

/** Fixed weights of the rewards beside a divergence of weight `kl`. */
const fixed = (weights, kl, thresholds) => (mean, divergence, advantages) =>
  mixAdvantages(
    divergence,
    advantages,
    thresholds ? weightsOf('ppo-sat', Float64Array.from(weights), mean, thresholds) : weights,
    kl,
  );

/** Multipliers that follow thresholds; gives their course as well. */
function constrained(squash, seed) {
  const draw = 0.01 * createRandom(seed).fork(3).normal();
  const state = startMultipliers(new Float64Array(2).fill(draw));
  const settings = { squash, ...USUAL_MULTIPLIERS };
  const course = [];
  const weigh = (thresholds) => (mean, divergence, advantages) => {
    const lam = state.raw.map((raw) => squashed(raw, squash));
    const mixed = mixAdvantages(divergence, advantages, lam, divergenceWeight(lam, squash));
    updateMultipliers(state, mean, thresholds, settings);
    course.push([...lam]);
    return mixed;
  };
  return { weigh, course };
}

/** Mean over the last fifth of the updates, which noise of one minibatch does not move. */
function train(policy, weigh, updates = UPDATES) {
  const track = [];
  for (let u = 0; u < updates; u++) {
    policy.update(weigh);
    track.push(policy.rewards());
  }
  const tail = track.slice(-Math.ceil(updates / 5));
  const rewards = NAMES.map((_, i) => tail.reduce((sum, row) => sum + row[i], 0) / tail.length);
  return { rewards, quality: quality(rewards), track };
}

/** Checkpoints of runs with fixed weights, scored with a little noise. */
function scoredRuns(arms, seed) {
  const random = createRandom(seed).fork(4);
  const rewards = [];
  const score = [];
  for (const [k, angle] of [-0.15, 0.05, 0.25, 0.5, 0.75, 0.95, 1.15].entries()) {
    for (const [j, kl] of [0.2, 0.6, 1.5, 3].entries()) {
      const policy = createPolicy(arms, 1000 * seed + 10 * k + j);
      const weigh = fixed([2 * Math.cos((angle * Math.PI) / 2), 2 * Math.sin((angle * Math.PI) / 2)], kl);
      for (let checkpoint = 0; checkpoint < 6; checkpoint++) {
        const now = policy.rewards();
        rewards.push(...now);
        score.push(quality(now) + 0.01 * random.normal());
        for (let u = 0; u < 12; u++) policy.update(weigh);
      }
    }
  }
  return { names: NAMES, rows: score.length, rewards: Float64Array.from(rewards), score: Float64Array.from(score) };
}

const within = (rewards, thresholds, part) =>
  rewards.every((r, i) => Math.abs(r - thresholds[i]) <= part * thresholds[i]);

/** The search of the released code: one policy goes on towards each point until it is within 5 % or REACH updates have passed. */
function search(arms, seed, from, high) {
  const policy = createPolicy(arms, 77 + seed);
  const { weigh } = constrained('tanh', seed);
  const simplex = drawSimplex({ low: Float64Array.from(from), high: Float64Array.from(high) }, seed);
  const span = high.map((value, i) => 0.02 * (value - from[i]));
  const step = cachedSimplexSearch(simplex, { maxEvaluations: 60, tolerance: 0.01, cacheTolerance: span });
  let asked = step.next();
  let updates = 0;
  while (!asked.done) {
    for (let u = 0; u < REACH; u++) {
      policy.update(weigh(asked.value));
      updates++;
      if ((u + 1) % 5 === 0 && within(policy.rewards(), asked.value, 0.05)) break;
    }
    asked = step.next(-quality(policy.rewards()));
  }
  return { ...asked.value, updates };
}

const results = [];
for (const seed of SEEDS) {
  const arms = makeArms(seed);
  const runs = scoredRuns(arms, seed);
  const proxy = proxyPoints(runs, { smoother: 'quadratic', span: 0.75, seed, draws: 200, level: 0.9 });
  const joint = [...proxy.joint.point];
  const individual = proxy.individual.map(({ point }) => point[0]);
  const arm = (name, thresholds, weigh, extra = {}) => ({
    name,
    thresholds,
    ...train(createPolicy(arms, seed), weigh),
    ...extra,
  });
  const moved = (thresholds, squash = 'tanh') => {
    const { weigh, course } = constrained(squash, seed);
    return { weigh: weigh(thresholds), course };
  };
  const xi = moved(joint);
  const rows = [
    arm('fixed weights (PPO)', joint, fixed([1, 1], 0.2)),
    arm('saturated (PPO-SAT)', joint, fixed([1, 1], 0.2, joint)),
    arm('lower bounds (mu-PPO)', joint, moved(joint, 'sigmoid').weigh),
    arm('met (xi-PPO), joint', joint, xi.weigh, { course: xi.course }),
    arm('met, individual points', individual, moved(individual).weigh),
    arm(
      'met, joint + 10 %',
      joint.map((t) => 1.1 * t),
      moved(joint.map((t) => 1.1 * t)).weigh,
    ),
    arm(
      'met, joint - 10 %',
      joint.map((t) => 0.9 * t),
      moved(joint.map((t) => 0.9 * t)).weigh,
    ),
  ];
  const start = createPolicy(arms, seed).rewards();
  const found = search(arms, seed, start, [...proxy.box.high]);
  // The same search on the surface of the scored checkpoints: no path, no noise.
  const range = { low: Float64Array.from(start), high: Float64Array.from(proxy.box.high) };
  const offline = searchThresholds((x) => proxy.joint.fitted.surface.predict(x), drawSimplex(range, seed), {
    maxEvaluations: 60,
    tolerance: 0.01,
    cacheTolerance: range.high.map((value, i) => 0.02 * (value - range.low[i])),
  });
  results.push({ offline, seed, rows, proxy, runs, found, joint, individual, start });
  console.error(
    `seed ${seed}: joint ${joint.map((x) => x.toFixed(3))}, individual ${individual.map((x) => x.toFixed(3))}, ${proxy.joint.status}`,
  );
  for (const { name, rewards, quality: q } of rows)
    console.error(`  ${name}: R ${rewards.map((x) => x.toFixed(3))}, quality ${q.toFixed(4)}`);
  console.error(
    `  search: ${found.evaluated.length} evaluations, best ${[...found.best.x].map((x) => x.toFixed(3))}, quality ${(-found.best.value).toFixed(4)}, ${found.updates} updates`,
  );
}

const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const deviation = (list) =>
  Math.sqrt(list.reduce((sum, value) => sum + (value - mean(list)) ** 2, 0) / (list.length - 1));
const show = (list, digits) => `${mean(list).toFixed(digits)} ± ${deviation(list).toFixed(digits)}`;
const worst = ({ rewards, thresholds }) =>
  Math.max(...rewards.map((r, i) => Math.abs(r - thresholds[i]) / thresholds[i]));
const summary = results[0].rows.map(({ name }, k) => {
  const runs = results.map(({ rows }) => rows[k]);
  return {
    name,
    first: runs.map(({ rewards }) => rewards[0]),
    second: runs.map(({ rewards }) => rewards[1]),
    miss: runs.map(worst),
    quality: runs.map(({ quality: q }) => q),
  };
});
const best = results.map(({ found }) => -found.best.value);
const evaluations = results.map(({ found }) => found.evaluated.length);
writeFileSync(
  'docs/papers/constrained-rewards.csv',
  [
    'seed,run,first_reward,second_reward,first_threshold,second_threshold,quality',
    ...results.flatMap(({ seed, rows }) =>
      rows.map(({ name, rewards, thresholds, quality: q }) =>
        [seed, `"${name}"`, ...rewards, ...thresholds, q].join(','),
      ),
    ),
    ...results.map(({ seed, found }) => [seed, 'search', ...found.best.x, '', '', -found.best.value].join(',')),
    '',
  ].join('\n'),
);

const [{ runs, proxy, rows, found }] = results;
const grid = 64;
const { low, high } = proxy.box;
const cells = new Float64Array(grid * grid);
for (let r = 0; r < grid; r++) {
  for (let c = 0; c < grid; c++) {
    cells[r * grid + c] = proxy.joint.fitted.surface.predict([
      low[0] + ((c + 0.5) / grid) * (high[0] - low[0]),
      low[1] + ((r + 0.5) / grid) * (high[1] - low[1]),
    ]);
  }
}
const updates = Float64Array.from({ length: UPDATES }, (_, u) => u + 1);
const shown = [0, 1, 2, 3];
const line = (k, y, extra = {}) => ({ name: rows[k].name, x: updates, y, colour: k, ...extra });
const panels = [
  await contourChart({
    title: 'Scored checkpoints of fixed weights, and the surface fitted to them',
    note: 'Seed 0. Circles: thresholds that the search tried; its first simplex is drawn from the initial to the largest rewards.',
    xLabel: 'first reward',
    yLabel: 'second reward',
    valueLabel: 'quality',
    x: [low[0], high[0]],
    y: [low[1], high[1]],
    values: cells,
    columns: grid,
    rows: grid,
    points: Array.from(runs.score, (_, r) => ({ x: runs.rewards[2 * r], y: runs.rewards[2 * r + 1] })),
    pointLabel: 'checkpoints',
    marks: [
      {
        label: 'individual points',
        x: proxy.individual[0].point[0],
        y: proxy.individual[1].point[0],
        colour: CATEGORY_COLOURS[3],
      },
      { label: 'joint point', x: proxy.joint.point[0], y: proxy.joint.point[1], colour: CATEGORY_COLOURS[1] },
    ],
    trail: {
      label: 'search',
      x: found.evaluated.map(({ x }) => x[0]),
      y: found.evaluated.map(({ x }) => x[1]),
      colour: CATEGORY_COLOURS[4],
    },
  }),
  await lineChart({
    title: 'Quality',
    note: 'Seed 0; of the policy, without noise.',
    xLabel: 'update',
    yLabel: 'quality',
    yLow: -0.2,
    yHigh: 1,
    series: shown.map((k) => line(k, rows[k].track.map(quality))),
    dots: false,
  }),
  await lineChart({
    title: 'First reward',
    note: 'Seed 0; dashed, the joint proxy point.',
    xLabel: 'update',
    yLabel: 'mean reward',
    series: shown.map((k) =>
      line(
        k,
        rows[k].track.map(([r]) => r),
      ),
    ),
    references: [{ value: proxy.joint.point[0], label: 'threshold' }],
    dots: false,
  }),
  await lineChart({
    title: 'Multipliers of xi-PPO',
    note: 'Seed 0; tanh, so that a reward above its threshold may be pushed down.',
    xLabel: 'update',
    yLabel: 'multiplier',
    series: NAMES.map((name, i) => ({ name: `${name} reward`, x: updates, y: rows[3].course.map((lam) => lam[i]) })),
    dots: false,
  }),
];
const figure = {
  title: 'Constrained rewards',
  subtitle: `A bandit with two correlated rewards; ${SEEDS.length} seeds`,
  headline: [],
  panels,
  sections: [],
};
writeFileSync('docs/papers/constrained-rewards.svg', await plotBytes(figure, 'constrained-rewards.svg'));

console.log('| run | first reward | second reward | worst miss of a threshold | quality |');
console.log('|---|---|---|---|---|');
for (const row of summary) {
  const miss = `${(100 * mean(row.miss)).toFixed(1)} % (at most ${(100 * Math.max(...row.miss)).toFixed(1)} %)`;
  console.log(`| ${row.name} | ${show(row.first, 3)} | ${show(row.second, 3)} | ${miss} | ${show(row.quality, 4)} |`);
}
console.log(`search: evaluations ${evaluations.join(', ')}; best quality ${best.map((q) => q.toFixed(3)).join(', ')}`);
console.log(
  `search on the surface: evaluations ${results.map(({ offline }) => offline.evaluated.length).join(', ')}; quality of its best ${results.map(({ offline }) => quality([...offline.best.thresholds]).toFixed(3)).join(', ')}`,
);
console.log(
  `correlation of the rewards of checkpoints ${show(
    results.map((one) => one.proxy.correlation[1]),
    3,
  )}`,
);
for (const i of [0, 1]) {
  console.log(
    `${NAMES[i]}: optimum ${OPTIMUM[i]}, joint ${show(
      results.map(({ joint }) => joint[i]),
      3,
    )}, individual ${show(
      results.map(({ individual }) => individual[i]),
      3,
    )}, ` +
      `90 % interval of the joint point holds the optimum in ${results.filter((one) => one.proxy.joint.intervals[i].low <= OPTIMUM[i] && OPTIMUM[i] <= one.proxy.joint.intervals[i].high).length} of ${SEEDS.length}`,
  );
}
