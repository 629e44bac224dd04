-- Commit {owner, epoch, turn, appends, cursor, counts, mail} -> {'ok', results} | {'fenced', epoch} | {'late', turn}

local c = cmsgpack.unpack(ARGV[1])
local owner, epoch, turn = c[1], c[2], c[3]
local state = call('HMGET', 'owner:' .. owner, 'epoch', 'turn', 'reply', 'term')
local current = epoch_of(state[1], state[4])
if current ~= epoch then
  return { 'fenced', math.abs(current) }
end
local last = tonumber(state[2] or '0')
if turn == last then
  return { 'ok', state[3] }
elseif turn < last then
  return { 'late', last }
end

local scheduler_epoch

-- `lane` is the backfill for which the run is admitted
local function admitted(r, wanted, lane)
  scheduler_epoch = scheduler_epoch or scheduler_epoch_now()
  return wanted == scheduler_epoch and call('HGET', 'dag:' .. r.t .. ':' .. r.d, 'paused') ~= '1'
    and (lane == '' or call('HGET', 'run:' .. lane, 'st') ~= 'paused')
end

local function take(r, passive)
  local now = ((passive and not r.hd) or TERMINAL[r.st]) and '' or owner
  if now == r.own then
    return
  end
  if r.own ~= '' then drop_member('own:' .. r.own, r.id) end
  if now ~= '' then add_member('own:' .. now, r.id) end
  r.own = now
end

local function change_state(r, after, finished)
  local before = r.st
  move(r, after, r.v)
  if TERMINAL[after] then
    put(scored, 'timers', 'wake|' .. r.id, false)
    put(scored, 'timers', 'sla|' .. r.id, false)
    if r.rt ~= 'backfill' then measure(r, after, finished or r.cr) end
    ended(r, finished or r.cr)
  elseif TERMINAL[before] then
    ended(r, false)
    if r.sla ~= '' and r.fi ~= '' and tonumber(r.sla) > tonumber(r.fi) then timer('sla|' .. r.id, r.sla) end
  end
  return TERMINAL[after] or TERMINAL[before] or (before == 'queued' and after ~= 'running')
end

-- the row tells of the first of them; names hold no space
local function miss_slas(r, names)
  local shown = call('HGET', 'run:' .. r.id, 'sm')
  local list = shown and { shown } or {}
  local _, known = string.gsub(shown or '', '|', '')
  for n = 1, math.min(#names, SLAS_SHOWN - known) do
    list[#list + 1] = names[n] .. '|'
  end
  call('HSET', 'run:' .. r.id, 'sm', table.concat(list))
end

-- how a backfill stands, when that has changed
local function tell_shape(r, before, cap)
  local turned = before ~= r.st and (before == 'paused' or r.st == 'paused')
  if not TERMINAL[r.st] and (turned or cap) then
    sched[#sched + 1] = {
      k = 'shaped', run_id = r.id, tenant = r.t, dag_id = r.d, paused = r.st == 'paused',
      max_active_runs = tonumber(call('HGET', 'run:' .. r.id, 'mar') or ''),
    }
  end
end

-- whom tasks of the run call from now on; a run that nobody waits for any more is cancelled
local function set_calls(r, pairs_)
  local key = 'calls:' .. r.id
  for _, pair in ipairs(pairs_) do
    local task, child = pair[1], pair[2]
    local old = child == '' and call('HGET', key, task)
    local st = old and call('HGET', 'run:' .. old, 'st')
    if child ~= '' then
      call('HSET', key, task, child)
    elseif st and not TERMINAL[st] then
      add_member('replaced', old)
      sched[#sched + 1] = { k = 'wake', run_id = old, reason = 'orphan' }
    elseif old and not st then
      call('HDEL', key, task)
    end
  end
end

-- whoever follows its DAG is told that the run succeeded
local heard = {}
local function tell_followers(r, attempt, finished)
  if r.rt ~= 'backfill' and not r.hd and call('EXISTS', 'fol:' .. r.t .. ':after/' .. r.d) == 1 then
    heard[#heard + 1] = {
      k = 'succeeded', tenant = r.t, dag_id = r.d, run_id = r.id, window_key = r.wk,
      attempt = tonumber(attempt or call('HGET', 'run:' .. r.id, 'at') or '0'), at_ms = finished or r.cr,
    }
  end
end

local function apply(r, a)
  local before, count = r.st, a[3]
  r.v = r.v + count
  if count > 0 then append_events(r.id, r.v, a[4], a[17]) end
  local tell = a[13]
  if a[5] and a[5] ~= before then tell = change_state(r, a[5], a[8]) or tell end
  take(r, a[13])
  local set = { 'v', r.v, 'own', r.own, 'st', r.st }
  local unset = {}
  local function field(name, value, none)
    if value and value ~= none then
      set[#set + 1] = name
      set[#set + 1] = value
    elseif value and r[name] ~= '' then
      unset[#unset + 1] = name
    end
  end
  field('at', a[6])
  field('sa', a[7], 0)
  field('fi', a[8], 0)
  field('err', a[9], '')
  field('dv', a[10])
  field('mar', a[20], 0)
  call('HSET', 'run:' .. r.id, unpack(set))
  if #unset > 0 then call('HDEL', 'run:' .. r.id, unpack(unset)) end
  if a[5] == 'succeeded' and before ~= a[5] then tell_followers(r, a[6], a[8]) end
  if #a[18] > 0 then miss_slas(r, a[18]) end
  if r.rt == 'backfill' then tell_shape(r, before, a[20]) end
  if a[12] then reset_tasks(r) end
  if #a[11] > 0 then set_tasks(r, a[11]) end
  if #a[21] > 0 then set_calls(r, a[21]) end
  if a[14] == 0 then
    put(scored, 'timers', 'wake|' .. r.id, false)
  elseif a[14] then
    timer('wake|' .. r.id, a[14])
  end
  if tell and not r.hd then
    sched[#sched + 1] = {
      k = 'moved', run_id = r.id, tenant = r.t, dag_id = r.d, run_type = r.rt, parent = r.par,
      before = before, after = r.st, owner = r.own,
    }
  end
  if count > 0 then feed[#feed + 1] = { r.id, r.v, r.st } end
end

local function append(a)
  local id = a[1]
  local r = row(id)
  if not r then
    return { id, 'missing', 0, '', '' }
  end
  local status, reply = stored(a[16])
  if status then
    return { id, status, r.v, r.own, reply }
  end
  if r.v ~= a[2] or (r.own ~= '' and r.own ~= owner) then
    return { id, 'stale', r.v, r.own, '' }
  end
  if a[15] and not admitted(r, a[15], a[19]) then
    return { id, 'refused', r.v, r.own, '' }
  end
  apply(r, a)
  if a[16] then store(a[16], a[16][3]) end
  return { id, 'ok', r.v, r.own, '' }
end

local results, applied = {}, {}
for n, a in ipairs(c[4]) do
  results[n] = append(a)
  applied[a[1]] = results[n][2] == 'ok'
end
for _, count in ipairs(c[6]) do
  add('metrics', count[1], count[2])
end
for _, mail in ipairs(c[7]) do
  if mail[3] == '' or applied[mail[3]] then call('XADD', 'in:' .. mail[1], '*', 'e', mail[2]) end
end
if #heard > 0 then call('XADD', 'in:triggers', '*', 'e', cjson.encode(heard)) end
flush()
local reply = #results > 0 and cmsgpack.pack(results) or '\144'
call('HSET', 'owner:' .. owner, 'turn', turn, 'reply', reply)
if c[5] then
  call('HSET', 'owner:' .. owner, 'cursor', c[5])
  call('XTRIM', 'in:' .. owner, 'MINID', '~', c[5])
end
return { 'ok', reply }
