// React hooks and a component over the generated client. `orchestrator generate-types --out src/lib` writes what is
// imported here; React Query (@tanstack/react-query) keeps the answers, a live socket keeps them fresh.

import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';
import { type ApiError, createApiClient, type OrchestratorEvent, type OrchestratorInfo } from '@/lib/api-client';

const api = createApiClient('http://localhost:8000');

export function useOrchestrators() {
  return useQuery({
    queryKey: ['orchestrators'],
    queryFn: ({ signal }) => api.listOrchestrators({ signal }),
    refetchInterval: 5000,
  });
}

export function usePauseOrchestrator() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.pauseOrchestrator(id),
    onSuccess: () => queries.invalidateQueries({ queryKey: ['orchestrators'] }),
  });
}

/** The status of one orchestrator, asked for again whenever it tells that something has changed. */
export function useLiveStatus(id: string) {
  const queries = useQueryClient();
  useEffect(() => {
    const ws = api.connectEvents(id);
    ws.onmessage = (event) => {
      const data: OrchestratorEvent = JSON.parse(event.data);
      if (data.type !== 'ping') void queries.invalidateQueries({ queryKey: ['status', id] });
    };
    return () => ws.close();
  }, [id, queries]);
  return useQuery({ queryKey: ['status', id], queryFn: () => api.getOrchestratorStatus(id) });
}

export function OrchestratorRow({ orchestrator }: { orchestrator: OrchestratorInfo }) {
  const status = useLiveStatus(orchestrator.id);
  const pause = usePauseOrchestrator();
  const refused = pause.error as ApiError | null;
  return (
    <li>
      {orchestrator.plan_name}: {status.data?.summary.progress_percent.toFixed(0) ?? '…'} %
      <button disabled={!orchestrator.is_alive} onClick={() => pause.mutate(orchestrator.id)}>Pause</button>
      {refused && <em>{refused.message}</em>}
    </li>
  );
}
