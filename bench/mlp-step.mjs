// Claim: forward and backward of a small perceptron (784-256-10, batch 128) take no longer than PyTorch's.
//
//   npm run build && node bench/mlp-step.mjs --python PYTHON [--threads 2] [--repeats 300] [--rounds 5]
//
// Cross-entropy, f32, gradients of all weights. Rounds alternate between the sides; each gives its median of `repeats`.
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const src = new URL('../dist/src/', import.meta.url);
const { composeNetwork } = await import(new URL('training/networks.js', src));
const { parseNetwork } = await import(new URL('training/network-text.js', src));
const { openOnnxStudent } = await import(new URL('training/onnx-student.js', src));
const { createObjective } = await import(new URL('training/objective.js', src));
const { createLoss } = await import(new URL('training/losses/index.js', src));
const { configureKernels } = await import(new URL('kernels/native.js', src));
const { createRandom } = await import(new URL('random.js', src));

const { values } = parseArgs({
  options: {
    python: { type: 'string' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '300' },
    rounds: { type: 'string', default: '5' },
  },
});
const [threads, repeats, rounds] = [values.threads, values.repeats, values.rounds].map(Number);
const ROWS = 128;
const TORCH = `
import statistics, sys, time, torch
torch.set_num_threads(${threads}); torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
x, y = torch.rand(${ROWS}, 784), torch.randint(10, (${ROWS},))
times = []
for i in range(${repeats} + 20):
    start = time.perf_counter()
    net.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(net(x), y).backward()
    if i >= 20: times.append(time.perf_counter() - start)
print(1000 * statistics.median(times))
`;

configureKernels({ threads });
const random = createRandom(0);
const { model } = composeNetwork(parseNetwork('mlp:256'), { dims: [784], classes: 10, seed: 0 });
const student = await openOnnxStudent(model, { precision: 'f32', threads, logits: 'logits' });
const features = Float32Array.from({ length: ROWS * 784 }, () => random.uniform());
const labels = Int32Array.from({ length: ROWS }, () => random.integer(10));
const batch = { features, rows: ROWS, labels, indices: labels };
const objective = createObjective([{ weight: 1, loss: createLoss('ce') }], { labels: () => labels });
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

async function own() {
  const times = [];
  for (let i = 0; i < repeats + 20; i++) {
    student.parameters.gradients.fill(0);
    const start = performance.now();
    await student.accumulate(batch, objective.begin(batch, { step: 1, epoch: 0 }).visit);
    if (i >= 20) times.push(performance.now() - start);
  }
  return median(times);
}

const ours = [];
const torch = [];
for (let round = 0; round < rounds; round++) {
  ours.push(await own());
  if (values.python) torch.push(Number(execFileSync(values.python, ['-c', TORCH], { encoding: 'utf8' })));
}
const line = (name, list) =>
  `${name.padEnd(8)} ${median(list).toFixed(3)} ms (${Math.min(...list).toFixed(3)} to ${Math.max(...list).toFixed(3)})`;
console.log(line('own', ours));
if (torch.length > 0) {
  console.log(line('PyTorch', torch));
  console.log(`ratio ${(median(torch) / median(ours)).toFixed(2)}`);
}
await student.close();
