import { describe, expect, it } from 'vitest';
import { doubleError, int, ints, none, type Operator, vector } from './operator-case.js';

const cases: Readonly<Record<string, Operator>> = {
  'Transpose without a permutation': { op: 'Transpose', inputs: [[2, 3, 4]] },
  'Transpose of rank 4': { op: 'Transpose', inputs: [[2, 3, 1, 4]], attributes: { perm: ints(3, 0, 2, 1) } },
  'Reshape to one open axis': { op: 'Reshape', inputs: [[2, 3, 4], vector(0, -1)] },
  Flatten: { op: 'Flatten', inputs: [[2, 3, 4]], attributes: { axis: int(2) } },
  'Squeeze of all axes': { op: 'Squeeze', inputs: [[1, 3, 1]] },
  Unsqueeze: { op: 'Unsqueeze', inputs: [[3, 2], vector(0, -1)] },
  'Expand in front and inside': { op: 'Expand', inputs: [[3, 1], vector(2, 3, 4)] },
  'Expand of an axis of 1 to 1': { op: 'Expand', inputs: [[1, 3], vector(1, 3)] },
  Tile: { op: 'Tile', inputs: [[2, 1, 3], vector(2, 3, 1)] },
  'Concat of three': {
    op: 'Concat',
    inputs: [
      [2, 1],
      [2, 3],
      [2, 2],
    ],
    attributes: { axis: int(-1) },
  },
  'Split in even parts': {
    op: 'Split',
    inputs: [[2, 6]],
    attributes: { axis: int(1), num_outputs: int(3) },
    outputs: 3,
  },
  'Split of which one part counts': {
    op: 'Split',
    inputs: [[5, 2], vector(1, 3, 1)],
    attributes: { axis: int(0) },
    outputs: 1,
    unseeded: 2,
  },
  'Pad on one side': { op: 'Pad', inputs: [[2, 3], vector(1, 0, 0, 2)] },
  'Pad that crops': { op: 'Pad', inputs: [[4, 5], vector(-1, 2, -2, -1)] },
  'Pad of named axes': { op: 'Pad', inputs: [[2, 3, 4], vector(1, 2), none, vector(-1)] },
  'Pad by reflection': { op: 'Pad', inputs: [[3, 4], vector(2, 1, 1, 3)], attributes: { mode: 'reflect' } },
  'Pad by the edge': { op: 'Pad', inputs: [[3, 4], vector(0, 2, 3, 1)], attributes: { mode: 'edge' } },
  'Pad round the back': { op: 'Pad', inputs: [[3, 4], vector(1, 2, 2, 0)], attributes: { mode: 'wrap' } },
  'Slice from both ends': { op: 'Slice', inputs: [[5, 4], vector(-3, 1), vector(1000, -1), vector(0, 1)] },
  'Slice without axes': { op: 'Slice', inputs: [[5, 4], vector(1, 0), vector(3, 2)] },
  'Slice to the largest integer': {
    op: 'Slice',
    inputs: [[5], vector(1), vector(Number.MAX_SAFE_INTEGER), vector(0), vector(2)],
  },
  'Slice by steps': { op: 'Slice', inputs: [[7, 5], vector(1, 4), vector(7, -100), vector(0, 1), vector(3, -2)] },
  'Slice backwards': { op: 'Slice', inputs: [[2, 5], vector(-1), vector(-1000), vector(1), vector(-1)] },
  'Slice of nothing': { op: 'Slice', inputs: [[4, 3], vector(2), vector(2), vector(0)] },
  'Trilu above': { op: 'Trilu', inputs: [[2, 3, 4], (g) => g.integers([-1], true)], attributes: { upper: int(1) } },
  'CumSum backwards without its own': {
    op: 'CumSum',
    inputs: [[3, 4], (g) => g.integers([1], true)],
    attributes: { exclusive: int(1), reverse: int(1) },
  },
  'DepthToSpace by depth': { op: 'DepthToSpace', inputs: [[2, 8, 2, 3]], attributes: { blocksize: int(2) } },
  'DepthToSpace by column': {
    op: 'DepthToSpace',
    inputs: [[1, 8, 2, 3]],
    attributes: { blocksize: int(2), mode: 'CRD' },
  },
  SpaceToDepth: { op: 'SpaceToDepth', inputs: [[2, 2, 4, 6]], attributes: { blocksize: int(2) } },
  ReverseSequence: {
    op: 'ReverseSequence',
    inputs: [[4, 3, 2], vector(2, 4, 1)],
    attributes: { batch_axis: int(1), time_axis: int(0) },
  },
  'Gather of repeated rows': { op: 'Gather', inputs: [[4, 3], vector(1, 1, -1, 0, 1)] },
  'Gather along the last axis': { op: 'Gather', inputs: [[2, 5], vector(4, 0, 4)], attributes: { axis: int(-1) } },
  'Gather of one place': {
    op: 'Gather',
    inputs: [[2, 5, 3], (g) => g.integers([-2], true)],
    attributes: { axis: int(1) },
  },
  'Gather of one row': { op: 'Gather', inputs: [[4, 3], vector(2)] },
  'GatherND of places': {
    op: 'GatherND',
    inputs: [[3, 4, 2], (g) => g.node('Reshape', [g.integers([0, 1, 2, -1, 0, 1]), g.integers([3, 2])])],
  },
  'GatherND of rows, a batch each': {
    op: 'GatherND',
    inputs: [[2, 4, 3], (g) => g.node('Reshape', [g.integers([0, 0, -1, 1]), g.integers([2, 2, 1])])],
    attributes: { batch_dims: int(1) },
  },
  'GatherElements with repetition': {
    op: 'GatherElements',
    inputs: [[2, 3], (g) => g.node('Reshape', [g.integers([0, 0, -1, 2, 1, 1, 1, 2]), g.integers([2, 4])])],
    attributes: { axis: int(1) },
  },
  'ScatterND in place': {
    op: 'ScatterND',
    inputs: [[4, 3], (g) => g.node('Reshape', [g.integers([1, 3]), g.integers([2, 1])]), [2, 3]],
  },
  'ScatterND that adds': {
    op: 'ScatterND',
    inputs: [[4, 3], (g) => g.node('Reshape', [g.integers([1, 1]), g.integers([2, 1])]), [2, 3]],
    attributes: { reduction: 'add' },
  },
  'ScatterElements in place': {
    op: 'ScatterElements',
    inputs: [[2, 4], (g) => g.node('Reshape', [g.integers([1, 3, 0, 2]), g.integers([2, 2])]), [2, 2]],
    attributes: { axis: int(1) },
  },
  'ScatterElements that adds': {
    op: 'ScatterElements',
    inputs: [[2, 4], (g) => g.node('Reshape', [g.integers([1, 1, 0, 2]), g.integers([2, 2])]), [2, 2]],
    attributes: { axis: int(-1), reduction: 'add' },
  },
  'TopK, the smallest': {
    op: 'TopK',
    inputs: [[2, 5], vector(2)],
    attributes: { axis: int(-1), largest: int(0) },
    unseeded: 1,
  },
  OneHot: { op: 'OneHot', inputs: [vector(1, 3, 1, -1), (g) => g.integers([4], true), [2]] },
  'Compress along an axis': {
    op: 'Compress',
    inputs: [[3, 4], (g) => g.node('Cast', [g.integers([1, 0, 1, 1])], { attributes: { to: int(9) } })],
    attributes: { axis: int(1) },
  },
  'Compress of the whole': {
    op: 'Compress',
    inputs: [[2, 2], (g) => g.node('Cast', [g.integers([1, 0, 1])], { attributes: { to: int(9) } })],
  },
};

describe('operators that move and index', () => {
  it.each(Object.keys(cases))('%s', async (name) => {
    expect(await doubleError(cases[name])).toBeLessThan(1e-7);
  });
});
