import { kernelStatus } from '../src/kernels/native.js';

let noticed = false;

/** Says once that the addon is missing and why. */
export function noticeSlowKernels(): void {
  const { native, reason } = kernelStatus();
  if (native || noticed) return;
  noticed = true;
  process.stderr.write(`notice: native kernels are not in use (${reason}); the TypeScript kernels serve, slower\n`);
}
