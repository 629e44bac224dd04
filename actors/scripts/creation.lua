-- Second prelude: what the scripts that create window runs share.

local function version_of(versions, t, d)
  local key = 'dag:' .. t .. ':' .. d
  if not versions[key] then
    versions[key] = tonumber(call('HGET', key, 'version') or '0')
  end
  return versions[key]
end

-- whether runs of the DAG's windows may have left for an archive since somebody looked there
local function moved_on(t, d, seen)
  return tonumber(call('HGET', 'dag:' .. t .. ':' .. d, 'archived') or '0') ~= seen
end

-- runs of one kind that are queued now travel in one item, in order
local groups, order = {}, {}
local function queue(run, again)
  local key = table.concat({ run.t, run.d, run.dv, run.rt, run.par or '', again and 'again' or '' }, '|')
  local item = groups[key]
  if not item then
    item = {
      k = 'created', tenant = run.t, dag_id = run.d, dag_version = run.dv, run_type = run.rt, parent = run.par or '',
      run_ids = {}, created_ms = run.cr, max_active_runs = run.mar, restarted = again and true or false,
      versions = again and {} or nil,
    }
    groups[key] = item
    order[#order + 1] = item
  end
  table.insert(item.run_ids, run.id)
  if again then table.insert(item.versions, run.v) end
end

-- the latest window starts first
local function reverse_queues()
  for _, item in ipairs(order) do
    for _, list in ipairs({ item.run_ids, item.versions or {} }) do
      for n = 1, math.floor(#list / 2) do
        list[n], list[#list + 1 - n] = list[#list + 1 - n], list[n]
      end
    end
  end
end

local function flush_queue()
  for _, item in ipairs(order) do
    sched[#sched + 1] = item
  end
end

-- NewRun {run_id, tenant, dag_id, dag_version, run_type, created, event, window_key, sla, reprocess, restart_event,
-- restart_version, pinned_version, alone, owner, parent, schema, wake, caller {run, task} or {}, because}
--   -> {run_id, state, how}
local function stand(n)
  local r
  local called = n[19][1] ~= nil
  if n[8] ~= '' and not called then
    local existing = call('HGET', 'win:' .. n[2] .. ':' .. n[3], n[8])
    r = existing and row(existing)
  else
    r = row(n[1])
  end
  if r and n[8] ~= '' and not called and restarts(n[10], r.st) then
    restart(r, n[11], 1, n[12], nil, n[18])
    if n[20] ~= '' then call('HSET', 'run:' .. r.id, 'by', n[20]) end
    r.dv = n[12]
    queue(r, true)
    return { r.id, 'queued', 'restarted' }
  elseif r then
    return { r.id, r.st, r.id == n[1] and 'created' or 'existing' }
  end
  local run = {
    id = n[1], t = n[2], d = n[3], dv = n[4], rt = n[5], cr = n[6], events = n[7], wk = n[8], sla = n[9], schema = n[17],
    wake = n[18], by = n[20],
  }
  if called then run.cl = n[19][1] .. ' ' .. n[19][2] end
  if n[15] ~= '' then run.hd, run.own, run.par = n[15], n[15], n[16] end
  create(run)
  if n[14] then call('HSET', 'alone:' .. run.t, run.d, run.id) end
  if run.wk ~= '' and not called then call('HSET', 'win:' .. run.t .. ':' .. run.d, run.wk, run.id) end
  feed[#feed + 1] = { run.id, 1, 'queued' }
  if not run.hd then queue(run, false) end
  return { run.id, 'queued', 'created' }
end

-- whether nobody waits for a run that a task called, and that is not there yet
local function unwanted(n)
  local by = n[19]
  return by[1] ~= nil and not row(n[1]) and call('HGET', 'calls:' .. by[1], by[2]) ~= n[1]
end

-- the run, other than this one, because of which a NewRun that has to be alone is refused
--
-- The claim names a run and holds while that one goes on, so nobody has to release it.
local function rival(n)
  local id = n[14] and call('HGET', 'alone:' .. n[2], n[3])
  local r = id and id ~= n[1] and row(id)
  return r and not TERMINAL[r.st] and r or nil
end

-- whether the versions a NewRun was made with still hold; those of a held run are nobody's
local function holds(n, versions)
  if n[15] ~= '' then
    return true
  elseif n[13] ~= 0 and n[8] ~= '' then
    local existing = call('HGET', 'win:' .. n[2] .. ':' .. n[3], n[8])
    if existing then
      return tonumber(call('HGET', 'run:' .. existing, 'dv')) == n[13]
    end
  end
  return version_of(versions, n[2], n[3]) == n[4]
end
