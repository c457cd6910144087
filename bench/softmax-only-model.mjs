/**
 * A softmax-only transformer over characters with its gradients by hand: no layer norm, no activation, so that softmax
 * is the only nonlinearity (Jha & Reagen 2025). Small enough for an experiment of minutes; not a training engine.
 *
 * The regulariser and its gradients are those of src/entropy; products run in the native kernels.
 */
const src = new URL('../dist/src/', import.meta.url);
const { entropyRegulariser } = await import(new URL('entropy/attention-regulariser.js', src));
const { LEAST_TEMPERATURE, scoreGradient } = await import(new URL('entropy/attention-temperature.js', src));
const { multiply } = await import(new URL('kernels/gemm.js', src));

const MATRICES = ['wq', 'wk', 'wv', 'wo', 'w1', 'w2'];

/**
 * @param shape { layers, heads, width, inner, length, vocabulary }
 * @param settings { scaledFfn, temperatures: initial t of every head and position, or undefined for t = 1 throughout }
 */
export function createModel(shape, settings, random) {
  const { layers, heads, width, inner, length, vocabulary } = shape;
  const normal = (count, deviation) => Float32Array.from({ length: count }, () => deviation * random.normal());
  const ones = (count, value = 1) => new Float32Array(count).fill(value);
  const deep = 0.02 / Math.sqrt(2 * layers);
  const parameters = {
    embedding: normal(vocabulary * width, 0.02),
    positions: normal(length * width, 0.02),
    head: normal(width * vocabulary, 0.02),
  };
  for (let l = 0; l < layers; l++) {
    for (const name of ['wq', 'wk', 'wv']) parameters[`${name}.${l}`] = normal(width * width, 0.02);
    parameters[`wo.${l}`] = normal(width * width, deep);
    parameters[`w1.${l}`] = normal(width * inner, 0.02);
    parameters[`w2.${l}`] = normal(inner * width, deep);
    if (settings.scaledFfn) {
      parameters[`alpha.${l}`] = ones(1);
      parameters[`beta.${l}`] = ones(1);
    }
    if (settings.temperatures !== undefined) parameters[`t.${l}`] = ones(heads * length, settings.temperatures);
    if (settings.thresholds) {
      parameters[`theta.${l}`] = Float32Array.from({ length: heads }, () => random.uniform());
    }
  }
  return { shape, settings, parameters };
}

const product = (a, b, m, n, k, options) => multiply(a, b, new Float32Array(m * n), { m, n, k }, options);
const addTo = (target, values) => {
  for (let i = 0; i < target.length; i++) target[i] += values[i];
};

/** Columns of one head of rows [length, width], packed. */
function headOf(rows, first, head, dim, width, length) {
  const out = new Float32Array(length * dim);
  for (let i = 0; i < length; i++)
    out.set(rows.subarray((first + i) * width + head * dim, (first + i) * width + (head + 1) * dim), i * dim);
  return out;
}

function placeHead(rows, packed, first, head, dim, width, length) {
  for (let i = 0; i < length; i++) rows.set(packed.subarray(i * dim, (i + 1) * dim), (first + i) * width + head * dim);
}

/** Attention of one layer: probabilities a and scores z, [batch, heads, length, length], and entropies of the rows. */
function attend(model, l, q, k, v, batch) {
  const { heads, width, length } = model.shape;
  const dim = width / heads;
  const cells = length * length;
  const attention = new Float64Array(batch * heads * cells);
  const scores = new Float32Array(attention.length);
  const entropies = new Float64Array(batch * heads * length);
  const mixed = new Float32Array(batch * length * width);
  const temperatures = model.parameters[`t.${l}`];
  const scale = 1 / Math.sqrt(dim);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const place = b * heads + h;
      const [qh, kh, vh] = [q, k, v].map((rows) => headOf(rows, b * length, h, dim, width, length));
      const s = product(qh, kh, length, length, dim, { transposeB: true });
      const a = new Float32Array(cells);
      for (let i = 0; i < length; i++) {
        const factor = scale / (temperatures ? temperatures[h * length + i] : 1);
        let most = Number.NEGATIVE_INFINITY;
        for (let j = 0; j <= i; j++) {
          s[i * length + j] *= factor;
          if (s[i * length + j] > most) most = s[i * length + j];
        }
        let z = 0;
        let weighted = 0;
        for (let j = 0; j <= i; j++) {
          const below = s[i * length + j] - most;
          const e = Math.exp(below);
          a[i * length + j] = e;
          z += e;
          weighted += e * below;
        }
        for (let j = 0; j <= i; j++) a[i * length + j] /= z;
        entropies[place * length + i] = Math.log(z) - weighted / z;
      }
      attention.set(a, place * cells);
      scores.set(s, place * cells);
      placeHead(mixed, product(a, vh, length, dim, length), b * length, h, dim, width, length);
    }
  }
  return { attention, scores, entropies, mixed };
}

/** Logits of tokens [batch, length] and all that the gradients need. */
export function forward(model, tokens, batch) {
  const { layers, width, inner, length, vocabulary } = model.shape;
  const { parameters } = model;
  const n = batch * length;
  let x = new Float32Array(n * width);
  for (let row = 0; row < n; row++) {
    const [token, place] = [tokens[row] * width, (row % length) * width];
    for (let d = 0; d < width; d++)
      x[row * width + d] = parameters.embedding[token + d] + parameters.positions[place + d];
  }
  const kept = [];
  for (let l = 0; l < layers; l++) {
    const weight = Object.fromEntries(MATRICES.map((name) => [name, parameters[`${name}.${l}`]]));
    const [q, k, v] = ['wq', 'wk', 'wv'].map((name) => product(x, weight[name], n, width, width));
    const attended = attend(model, l, q, k, v, batch);
    const middle = product(attended.mixed, weight.wo, n, width, width);
    addTo(middle, x);
    const up = product(middle, weight.w1, n, inner, width);
    const branch = product(up, weight.w2, n, width, inner);
    const alpha = parameters[`alpha.${l}`]?.[0] ?? 1;
    const beta = parameters[`beta.${l}`]?.[0] ?? 1;
    const next = new Float32Array(n * width);
    for (let i = 0; i < next.length; i++) next[i] = beta * middle[i] + branch[i] / alpha;
    kept.push({ x, q, k, v, ...attended, middle, up, branch });
    x = next;
  }
  return { logits: product(x, parameters.head, n, vocabulary, width), last: x, kept };
}

/** Mean cross-entropy in nats, and its gradient by the logits. */
export function crossEntropy(logits, targets, vocabulary) {
  const rows = targets.length;
  const gradient = new Float32Array(logits.length);
  let loss = 0;
  for (let row = 0; row < rows; row++) {
    const own = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    const most = own.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    let z = 0;
    for (let j = 0; j < vocabulary; j++) z += Math.exp(own[j] - most);
    loss += Math.log(z) + most - own[targets[row]];
    for (let j = 0; j < vocabulary; j++) gradient[row * vocabulary + j] = Math.exp(own[j] - most) / z / rows;
    gradient[row * vocabulary + targets[row]] -= 1 / rows;
  }
  return { loss: loss / rows, gradient };
}

/** The regulariser over all layers, with gradients by thresholds and by entropies; undefined without thresholds. */
function regularise(model, kept, batch, settings) {
  const { layers, heads, length } = model.shape;
  const perLayer = batch * heads * length;
  const entropies = new Float64Array(layers * perLayer);
  for (const [l, layer] of kept.entries()) entropies.set(layer.entropies, l * perLayer);
  const thresholds = new Float64Array(layers * heads);
  for (let l = 0; l < layers; l++) thresholds.set(model.parameters[`theta.${l}`], l * heads);
  return entropyRegulariser(entropies, { layers, batch, heads, queries: length }, thresholds, {
    reduction: 'code',
    gamma: settings.gamma,
    coefficient: settings.lambda,
    contextSize: length,
  });
}

/** Loss of a batch and the gradient of every parameter. */
export function lossAndGradients(model, tokens, targets, batch) {
  const { layers, heads, width, inner, length, vocabulary } = model.shape;
  const { parameters, settings } = model;
  const n = batch * length;
  const dim = width / heads;
  const cells = length * length;
  const { logits, last, kept } = forward(model, tokens, batch);
  const { loss, gradient: byLogits } = crossEntropy(logits, targets, vocabulary);
  const gradients = { head: product(last, byLogits, width, vocabulary, n, { transposeA: true }) };
  const penalty = settings.thresholds ? regularise(model, kept, batch, settings.regulariser) : undefined;
  let dx = product(byLogits, parameters.head, n, width, vocabulary, { transposeB: true });
  for (let l = layers - 1; l >= 0; l--) {
    const { x, q, k, v, attention, scores, entropies, mixed, middle, up, branch } = kept[l];
    const alpha = parameters[`alpha.${l}`]?.[0] ?? 1;
    const beta = parameters[`beta.${l}`]?.[0] ?? 1;
    const byBranch = dx.map((value) => value / alpha);
    const byMiddle = dx.map((value) => value * beta);
    if (settings.scaledFfn) {
      let [byAlpha, byBeta] = [0, 0];
      for (let i = 0; i < dx.length; i++) {
        byAlpha -= (dx[i] * branch[i]) / (alpha * alpha);
        byBeta += dx[i] * middle[i];
      }
      gradients[`alpha.${l}`] = Float32Array.of(byAlpha);
      gradients[`beta.${l}`] = Float32Array.of(byBeta);
    }
    gradients[`w2.${l}`] = product(up, byBranch, inner, width, n, { transposeA: true });
    const byUp = product(byBranch, parameters[`w2.${l}`], n, inner, width, { transposeB: true });
    gradients[`w1.${l}`] = product(middle, byUp, width, inner, n, { transposeA: true });
    addTo(byMiddle, product(byUp, parameters[`w1.${l}`], n, width, inner, { transposeB: true }));
    gradients[`wo.${l}`] = product(mixed, byMiddle, width, width, n, { transposeA: true });
    const byMixed = product(byMiddle, parameters[`wo.${l}`], n, width, width, { transposeB: true });

    const weights = penalty?.entropyGradient.subarray(l * entropies.length, (l + 1) * entropies.length);
    const byEntropy = weights && scoreGradient(attention, entropies, weights);
    const temperatures = parameters[`t.${l}`];
    const byTemperature = temperatures && new Float32Array(temperatures.length);
    const [dq, dk, dv] = [q, k, v].map((rows) => new Float32Array(rows.length));
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < heads; h++) {
        const at = (b * heads + h) * cells;
        const a = Float32Array.from(attention.subarray(at, at + cells));
        const own = [q, k, v, byMixed].map((rows) => headOf(rows, b * length, h, dim, width, length));
        const [qh, kh, vh, oh] = own;
        const ds = product(oh, vh, length, length, dim, { transposeB: true });
        for (let i = 0; i < length; i++) {
          const t = temperatures ? temperatures[h * length + i] : 1;
          let mean = 0;
          for (let j = 0; j <= i; j++) mean += a[i * length + j] * ds[i * length + j];
          let byT = 0;
          for (let j = 0; j < length; j++) {
            const cell = i * length + j;
            const dz = j > i ? 0 : a[cell] * (ds[cell] - mean) + (byEntropy ? byEntropy[at + cell] : 0);
            if (j <= i) byT -= (dz * scores[at + cell]) / t;
            ds[cell] = dz / (t * Math.sqrt(dim));
          }
          if (byTemperature) byTemperature[h * length + i] += byT;
        }
        placeHead(dv, product(a, oh, length, dim, length, { transposeA: true }), b * length, h, dim, width, length);
        placeHead(dq, product(ds, kh, length, dim, length), b * length, h, dim, width, length);
        placeHead(dk, product(ds, qh, length, dim, length, { transposeA: true }), b * length, h, dim, width, length);
      }
    }
    if (byTemperature) gradients[`t.${l}`] = byTemperature;
    if (penalty)
      gradients[`theta.${l}`] = Float32Array.from(penalty.thresholdGradient.subarray(l * heads, (l + 1) * heads));
    for (const [name, rows] of [
      ['wq', dq],
      ['wk', dk],
      ['wv', dv],
    ]) {
      gradients[`${name}.${l}`] = product(x, rows, width, width, n, { transposeA: true });
      addTo(byMiddle, product(rows, parameters[`${name}.${l}`], n, width, width, { transposeB: true }));
    }
    dx = byMiddle;
  }
  gradients.embedding = new Float32Array(parameters.embedding.length);
  gradients.positions = new Float32Array(parameters.positions.length);
  for (let row = 0; row < n; row++) {
    for (let d = 0; d < width; d++) {
      gradients.embedding[tokens[row] * width + d] += dx[row * width + d];
      gradients.positions[(row % length) * width + d] += dx[row * width + d];
    }
  }
  return { loss, penalty: penalty?.loss ?? 0, gradients, entropies: kept.map((layer) => layer.entropies) };
}

/** Adam with decay of the matrices alone: temperatures and thresholds have none. Temperatures keep above their floor. */
export function createAdam(model, { rate, decay }) {
  const moments = new Map();
  let step = 0;
  return (gradients, factor) => {
    step++;
    for (const [name, values] of Object.entries(model.parameters)) {
      const gradient = gradients[name];
      if (!moments.has(name)) moments.set(name, [new Float32Array(values.length), new Float32Array(values.length)]);
      const [first, second] = moments.get(name);
      const shrink = /^(w|head|embedding)/.test(name) ? 1 - rate * factor * decay : 1;
      for (let i = 0; i < values.length; i++) {
        first[i] = 0.9 * first[i] + 0.1 * gradient[i];
        second[i] = 0.95 * second[i] + 0.05 * gradient[i] * gradient[i];
        const scaled = first[i] / (1 - 0.9 ** step) / (Math.sqrt(second[i] / (1 - 0.95 ** step)) + 1e-8);
        values[i] = shrink * values[i] - rate * factor * scaled;
        if (name.startsWith('t.') && values[i] < LEAST_TEMPERATURE) values[i] = LEAST_TEMPERATURE;
      }
    }
  };
}
