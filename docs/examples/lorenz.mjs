// Trajectories of Lorenz-63 (sigma 10, rho 28, beta 8/3), Runge-Kutta of order 4: node lorenz.mjs > lorenz.csv
const STEP = 0.02;
const slope = ([x, y, z]) => [10 * (y - x), x * (28 - z) - y, x * y - (8 / 3) * z];
const moved = (state, direction, h) => state.map((value, i) => value + h * direction[i]);

function next(state) {
  const a = slope(state);
  const b = slope(moved(state, a, STEP / 2));
  const c = slope(moved(state, b, STEP / 2));
  const d = slope(moved(state, c, STEP));
  return state.map((value, i) => value + (STEP / 6) * (a[i] + 2 * b[i] + 2 * c[i] + d[i]));
}

console.log('sequence,x,y,z');
for (let sequence = 0; sequence < 8; sequence++) {
  let state = [1 + 0.3 * sequence, 1 - 0.2 * sequence, 20 + sequence];
  for (let t = 0; t < 500; t++) state = next(state);
  for (let t = 0; t < 500; t++) {
    console.log([sequence, ...state].join(','));
    state = next(state);
  }
}
