import { existsSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * What tests write they throw away, so they need not wait until a disk confirms it: their temporary files lie in memory
 * where there is a roomy place for it. A TMPDIR that is set is left as it is.
 */
const MEMORY = '/dev/shm';
if (process.env.TMPDIR === undefined && existsSync(MEMORY)) {
  const { bavail, bsize } = statfsSync(MEMORY);
  if (bavail * bsize > 4 * 2 ** 30) {
    const folder = mkdtempSync(join(MEMORY, 'surprisal-tests-'));
    process.env.TMPDIR = folder;
    process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  }
}

/** Folders whose tests change nothing that outlives them: their files share a process, which loads the modules once. */
const SHARED = [
  'decoding',
  'dependence',
  'distillation',
  'diversity',
  'entropy',
  'features',
  'formats',
  'fusion',
  'koopman',
  'linalg',
  'models',
  'moe',
  'optimization',
  'policy',
  'pretraining',
  'probes',
  'quantization',
  'regression',
  'report',
  'representations',
  'screening',
  'steering',
  'tokenizers',
  'training',
  'zeta',
]
  .map((folder) => `test/${folder}/**/*.test.ts`)
  .concat('test/kernels/merge-*.test.ts');

export default {
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: ['default', fileURLToPath(new URL('./plain-summary.mjs', import.meta.url))],
    projects: [
      { extends: true, test: { name: 'own process', include: ['test/**/*.test.ts'], exclude: SHARED } },
      { extends: true, test: { name: 'shared process', include: SHARED, isolate: false } },
    ],
  },
};
