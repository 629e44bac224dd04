-- NewBackfill -> msgpack {status, run_id, state, counts, reply}
--
-- {run_id, tenant, dag_id, dag_version, window_key, created, event, windows, reprocess, plan_hash, require_hash, max_active_runs,
-- backwards, restarts, restarts_version, restart_events, restart_count, idem, widens, widens_key, in_front, archived};
-- window {window_key, run_id, action, event, before, dag_version, sla, wake}

local b = cmsgpack.unpack(ARGV[1])
local t, d, windows, policy = b[2], b[3], b[8], b[9]
local again = b[14] ~= ''
local wide = b[19] ~= ''
local id = wide and b[19] or again and b[14] or b[1]
-- a window's run is an ordinary one: `backfill` are only those that have windows
local CHILD_TYPE = 'manual'
local by_window, own_key = 'win:' .. t .. ':' .. d, 'bfw:' .. t .. ':' .. d

local function answer(status, backfill, state)
  local counts = {}
  local pairs_ = call('HGETALL', 'bfc:' .. backfill)
  for n = 1, #pairs_, 2 do
    counts[pairs_[n]] = tonumber(pairs_[n + 1])
  end
  counts.skipped = call('SCARD', 'bfk:' .. backfill)
  return { status, backfill, state, counts, '' }
end

local function refusal(status)
  return cmsgpack.pack({ status, '', '', { skipped = 0 }, '' })
end

-- as the script's answer; kept with the reply under the request's key, if it has one
local function told(found)
  if b[18] then
    found[5] = b[18][3]
    store(b[18], cmsgpack.pack(found))
    found[5] = ''
  end
  return cmsgpack.pack(found)
end

-- what the journal itself would do about a window; nil, run when the window has none
local function disposition(r)
  if not r then
    return 'create'
  elseif not TERMINAL[r.st] then
    return 'adopt'
  end
  return restarts(policy, r.st) and 'restart' or 'skip'
end

-- the runs that stand for the windows now, or nil when the plan does not hold
local function check()
  local rows = {}
  for first = 1, #windows, CHUNK do
    local keys = {}
    for n = first, math.min(first + CHUNK - 1, #windows) do
      keys[#keys + 1] = windows[n][1]
    end
    for offset, existing in ipairs(call('HMGET', by_window, unpack(keys))) do
      local w = windows[first + offset - 1]
      local r = existing and row(existing)
      if disposition(r) ~= w[3] or (r and r.id ~= w[2]) or (w[3] == 'restart' and r.st ~= w[5]) then
        return nil
      end
      rows[first + offset - 1] = r
    end
  end
  return rows
end

local function same_windows()
  if call('LLEN', 'bf:' .. id) ~= #windows then
    return false
  end
  for first = 0, #windows - 1, CHUNK do
    for offset, child in ipairs(call('LRANGE', 'bf:' .. id, first, first + CHUNK - 1)) do
      if windows[first + offset][2] ~= child then
        return false
      end
    end
  end
  return true
end

local function watch(r)
  if string.find(' ' .. r.wb .. ' ', ' ' .. id .. ' ', 1, true) then
    return
  end
  r.wb = r.wb == '' and id or (r.wb .. ' ' .. id)
  call('HSET', 'run:' .. r.id, 'wb', r.wb)
end

local function count_in(r)
  add('bfc:' .. id, r.st, 1)
  local letters = call('HGETALL', 'tk:' .. r.id)
  for n = 1, #letters, 2 do
    if letters[n + 1] ~= 'p' then add('bft:' .. id, letters[n] .. '|' .. letters[n + 1], 1) end
  end
end

local function restart_child(w, r)
  local known = again and call('SISMEMBER', 'bfk:' .. id, r.id) == 0
  restart(r, w[4], 1, w[6], id, w[8])
  r.dv = w[6]
  if not known then
    drop_member('bfk:' .. id, r.id)
    watch(r)
    count_in(r)
  end
  queue({ id = r.id, v = r.v, t = t, d = d, dv = w[6], rt = r.rt, par = id, cr = b[6], mar = b[12] }, true)
end

local function create_child(w)
  create({
    id = w[2], t = t, d = d, dv = b[4], rt = CHILD_TYPE, cr = b[6], events = w[4], wk = w[1], sla = w[7], par = id,
    wake = w[8],
  })
  add('bfc:' .. id, 'queued', 1)
  queue({ id = w[2], t = t, d = d, dv = b[4], rt = CHILD_TYPE, par = id, cr = b[6], mar = b[12] }, false)
end

local function write_windows(rows)
  local front, ids, ranked, keyed = {}, {}, {}, {}
  for n = b[21], 1, -1 do
    front[#front + 1] = windows[n][2]
  end
  for n, w in ipairs(windows) do
    if n > b[21] then ids[#ids + 1] = w[2] end
    ranked[#ranked + 1] = '0'
    ranked[#ranked + 1] = w[2]
    if w[3] == 'create' then
      keyed[#keyed + 1] = w[1]
      keyed[#keyed + 1] = w[2]
      create_child(w)
    elseif w[3] == 'restart' then
      restart_child(w, rows[n])
    elseif not again and w[3] == 'skip' then
      add_member('bfk:' .. id, w[2])
    elseif not again then
      watch(rows[n])
      count_in(rows[n])
    end
  end
  many('HSET', by_window, keyed)
  if not again then
    many('LPUSH', 'bf:' .. id, front)
    many('RPUSH', 'bf:' .. id, ids)
    many('ZADD', 'i:p:' .. id, ranked)
  end
end

-- whoever has the backfill in memory reads it again; nobody's is taken up by somebody
local function write_wider(r)
  local version = r.v + 1
  append_events(id, version, b[7])
  local was = call('HGET', 'run:' .. id, 'was')
  call('HSET', 'run:' .. id, 'v', version, 'wk', b[5], 'was', (was and was .. '\n' or '') .. r.wk)
  call('HSET', own_key, b[5], id)
  feed[#feed + 1] = { id, version, r.st }
  if r.own ~= '' then
    call('XADD', 'in:' .. r.own, '*', 'e', cjson.encode({ { k = 'widened', run_id = id, version = version } }))
  else
    sched[#sched + 1] = { k = 'wake', run_id = id, reason = 'window' }
  end
end

local function write_backfill(r)
  local self = {
    id = id, t = t, d = d, dv = b[4], rt = 'backfill', cr = b[6], events = b[7], wk = b[5], mar = b[12], bw = b[13] and '1', ph = b[10],
  }
  if again then
    restart(r, b[16], b[17], b[4])
    self.v = r.v
    call('HSET', 'run:' .. id, 'ph', b[10], 'bw', b[13] and '1' or '', 'mar', b[12] or '')
  else
    create(self)
    call('HSET', own_key, b[5], id)
    feed[#feed + 1] = { id, 1, 'queued' }
  end
  queue(self, again)
end

local status, kept = stored(b[18])
if status == 'conflict' then
  return refusal('conflict')
elseif status then
  local reply = cmsgpack.unpack(kept)
  reply[1] = 'replayed'
  return cmsgpack.pack(reply)
end

local existing = call('HGET', own_key, b[5])
local r = existing and row(existing)
if wide then
  if existing and existing ~= id then
    return cmsgpack.pack({ 'taken', existing, '', { skipped = 0 }, '' })
  end
  r = row(id)
  if TERMINAL[r.st] or r.st == 'cancelling' then
    return cmsgpack.pack({ 'over', id, r.st, { skipped = 0 }, '' })
  elseif r.wk ~= b[20] then
    return refusal('changed')
  end
  local shape = call('HMGET', 'run:' .. id, 'mar', 'bw')
  b[12], b[13] = tonumber(shape[1] or ''), shape[2] == '1'
elseif r then
  local restartable = TERMINAL[r.st] and policy ~= 'none'
  if not restartable then
    if b[11] ~= '' and call('HGET', 'run:' .. existing, 'ph') ~= b[11] then
      return refusal('hash')
    end
    return told(answer('existing', existing, r.st))
  elseif existing ~= b[14] or r.v ~= b[15] then
    return refusal('changed')
  end
elseif again then
  return refusal('changed')
end
if version_of({}, t, d) ~= b[4] or moved_on(t, d, b[22]) or (again and not same_windows()) then
  return refusal('changed')
end
local rows = check()
if not rows then
  return refusal('changed')
end

if not wide then
  write_backfill(r)
elseif #windows > 0 then
  write_wider(r)
end
write_windows(rows)
if b[13] then reverse_queues() end
flush_queue()
flush()
return told(answer(wide and 'widened' or again and 'restarted' or 'created', id, wide and r.st or 'queued'))
