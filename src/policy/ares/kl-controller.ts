/** Settings of the controller of the KL weight of one bucket (published code, spec 4.6). */
export interface KlControl {
  /** KL that is aimed at, nats a token. Default 0.01. */
  readonly target?: number;
  /** beta before the first step. Default 1. */
  readonly initial?: number;
  /** Share of the old value in both moving averages. Default 0.97. */
  readonly ema?: number;
  /** Step of ln beta. Default 0.05. */
  readonly logRate?: number;
  /** The averaged error is held in [-this, this]. Default 0.2. */
  readonly errorClip?: number;
  /** beta moves at every so many calls. Default 100. */
  readonly interval?: number;
  /** Relative errors below this move nothing. Default 0.02. */
  readonly deadZone?: number;
  readonly least?: number;
  readonly most?: number;
}

export interface KlState {
  readonly beta: number;
  /** Moving average of the KL; absent before the first value. */
  readonly kl?: number;
  readonly error: number;
}

export function initialKl({ initial = 1 }: KlControl = {}): KlState {
  return { beta: initial, error: 0 };
}

/**
 * One call with the mean KL of a micro-batch. The counter is that of all calls, whatever their bucket, from 1: beta moves where it
 * is a multiple of the interval and the error is outside of the dead zone.
 */
export function controlKl(state: KlState, meanKl: number, calls: number, control: KlControl = {}): KlState {
  const { target = 0.01, ema = 0.97, logRate = 0.05, errorClip = 0.2, interval = 100, deadZone = 0.02 } = control;
  const { least = 1e-4, most = 1e2 } = control;
  const kl = state.kl === undefined ? meanKl : (1 - ema) * meanKl + ema * state.kl;
  const off = kl / target - 1;
  if (Math.abs(off) < deadZone || calls % interval !== 0) return { ...state, kl };
  const error = (1 - ema) * off + ema * state.error;
  const step = logRate * Math.min(errorClip, Math.max(-errorClip, error));
  return { kl, error, beta: Math.min(most, Math.max(least, state.beta * Math.exp(step))) };
}

/** The low-variance estimate of KL(pi || pi_ref) on a token and its derivative in log pi. */
export interface KlTerm {
  value: number;
  gradient: number;
}

/**
 * k3 = e^r - r - 1 with r = log pi_ref - log pi held in [-20, 20], the result in [-10, 10]; where a bound holds, the
 * derivative is 0.
 */
export function lowVarianceKl(logProb: number, referenceLogProb: number): KlTerm {
  const raw = referenceLogProb - logProb;
  const r = Math.min(20, Math.max(-20, raw));
  const value = Math.expm1(r) - r;
  if (value > 10) return { value: 10, gradient: 0 };
  return { value, gradient: raw === r ? -Math.expm1(r) : 0 };
}
