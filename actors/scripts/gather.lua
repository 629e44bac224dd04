-- Gather {scheduler_epoch, kind, key, expected, record, tenant, dag_id, dag_version, paused, runs, archived}
-- -> {status, msgpack list of {run_id, state, how}, of busy ones their windows}

local g = cmsgpack.unpack(ARGV[1])
if scheduler_epoch_now() ~= g[1] then
  return { 'fenced', '' }
end
local kept = 'rec:' .. g[2]
if text(call('HGET', kept, g[3])) ~= g[4] then
  return { 'stale', '' }
end
if g[7] ~= '' then
  local dag = call('HMGET', 'dag:' .. g[6] .. ':' .. g[7], 'version', 'paused')
  if tonumber(dag[1] or '0') ~= g[8] or (dag[2] == '1') ~= g[9] then
    return { 'changed', '' }
  end
end

-- the run of one of these windows may have left for an archive since somebody looked there
for _, run in ipairs(g[10]) do
  if run[8] ~= '' and moved_on(g[6], g[7], g[11]) then
    return { 'changed', '' }
  end
end

-- a run that waits has not begun: it will see what is told now
local busy = {}
for _, run in ipairs(g[10]) do
  local existing = run[8] ~= '' and call('HGET', 'win:' .. g[6] .. ':' .. g[7], run[8])
  local state = existing and call('HGET', 'run:' .. existing, 'st')
  if state and state ~= 'queued' and not TERMINAL[state] then busy[#busy + 1] = run[8] end
end
if #busy > 0 then
  return { 'busy', cmsgpack.pack(busy) }
end

local runs = {}
for n, run in ipairs(g[10]) do
  runs[n] = stand(run)
end
if #runs > 0 then add('metrics', 'triggered_runs_total|' .. g[7], #runs) end
call('HSET', kept, g[3], g[5])
flush_queue()
flush()
return { 'ok', cmsgpack.pack(runs) }
