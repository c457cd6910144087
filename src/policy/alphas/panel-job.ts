import { describeUniverse, type Panel, type Universe } from './panel.js';
import { type PanelRequest, readPanel } from './read-panel.js';

export interface OpenedPanel {
  readonly panel: Panel;
  readonly universe: Universe;
}

/** Reads a panel and looks at who is in it. */
export async function openPanel(request: PanelRequest): Promise<OpenedPanel> {
  const panel = await readPanel(request);
  return { panel, universe: describeUniverse(panel) };
}

/** The reference of {@link openPanel} for a thread of its own. */
export const OPEN_PANEL = { module: import.meta.url, job: openPanel };

/** The panel in memory that threads share, so that every search reads the same bytes. */
export function sharePanel(panel: Panel): Panel {
  return {
    ...panel,
    values: panel.values.map((values) => {
      const bytes = new SharedArrayBuffer(values.byteLength);
      const shared = values instanceof Float32Array ? new Float32Array(bytes) : new Float64Array(bytes);
      shared.set(values);
      return shared;
    }),
  };
}
