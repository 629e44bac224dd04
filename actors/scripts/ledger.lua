-- Prelude of every script: rows, indexes, counters and streams of the journal (layout: actors/journal.py).
--
-- A script checks everything first and only then writes, for a script that fails halfway leaves what it wrote.
-- Writes to shared sets and counters are collected and flushed once, so that a batch costs few commands.

local call = redis.call
local SCHEMA = ARGV[2]
local SCHED_LENGTH, FEED_LENGTH = 20000, 20000
-- fields of `metrics`, and what stands in them where others name a DAG
local METRICS_MAX = 30000
local OF_NOBODY = { le = true, sum_ms = true, sum_us = true, count = true }
local REPLY_TTL_MS = 86400000
local CHUNK, SLAS_SHOWN = 1000, 100
local TERMINAL = { succeeded = true, failed = true, cancelled = true, timed_out = true, quarantined = true }
local LATENCY_BOUNDS_MS = { 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 900000, 3600000 }
local LATENCY_NAMES = { '0.005', '0.01', '0.025', '0.05', '0.1', '0.25', '0.5', '1', '2.5', '5', '10', '30', '60', '300', '900', '3600' }

-- fields of a run's row, in the order in which Python reads them
local ROW = { 'v', 'own', 'st', 't', 'd', 'dv', 'rt', 'wk', 'par', 'at', 'cr', 'sa', 'fi', 'sla', 'err', 'mar', 'bw', 'ph', 'wb', 'hd', 'hr', 'sm', 'cl', 'by' }

local members, scored, deltas = {}, {}, {}
local sched, feed, news = {}, {}, {}
-- runs created by this script: "tenant|dag" -> {tenant, dag, run ids that are queued, all of them as ZADD wants them}
local born = {}
-- held runs created by this script: owner -> items of its inbox
local held = {}

local function text(value)
  return value or ''
end

-- of an owner: its epoch, less than nothing when that was taken under another term (see planes.lua)
local function epoch_of(state, term)
  local epoch = tonumber(state or '0')
  return (term or '0') == (call('HGET', 'plane', 'term') or '0') and epoch or -epoch
end

local function scheduler_epoch_now()
  local state = call('HMGET', 'owner:scheduler', 'epoch', 'term')
  return epoch_of(state[1], state[2])
end

local function put(collection, key, member, value)
  local of = collection[key]
  if not of then
    of = {}
    collection[key] = of
  end
  of[member] = value
end

local function add_member(key, member) put(members, key, member, true) end
local function drop_member(key, member) put(members, key, member, false) end
local function index(key, member) put(scored, key, member, '0') end
local function unindex(key, member) put(scored, key, member, false) end
local function timer(member, due) put(scored, 'timers', member, due) end

local function add(key, field, delta)
  local of = deltas[key]
  if not of then
    of = {}
    deltas[key] = of
  end
  of[field] = (of[field] or 0) + delta
end

-- `command key arg…` in as few calls as Lua's stack allows
local function many(command, key, args)
  for first = 1, #args, CHUNK do
    call(command, key, unpack(args, first, math.min(first + CHUNK - 1, #args)))
  end
end

-- a definition that is nobody's DAG: `@kind` or `@kind/name`
local function hidden(d)
  return string.byte(d) == 64
end

-- the name of a definition; of one that is nobody's DAG, its kind
local function label(d)
  return hidden(d) and string.match(d, '^[^/]*') or d
end

-- whose lists a run is in: its tenant's, or those that the tenant has for runs of that kind
local function lists_of(t, d)
  return hidden(d) and label(d) .. ':' .. t or t
end

local function index_keys(t, d, st)
  t = lists_of(t, d)
  return 'i:' .. t .. ':s:' .. st, 'i:' .. t .. ':d:' .. d .. ':s:' .. st
end

-- a run's place in lists: ids of all forms ascend with time behind their prefix, but those of held runs need not
local function place(r)
  if r.hd then
    return string.format('run_%013d|%s', r.cr, r.id)
  end
  return string.sub(r.id, 1, 4) == 'run_' and r.id or 'run_' .. r.id
end

local function row(id)
  local v = call('HMGET', 'run:' .. id, 'v', 'own', 'st', 't', 'd', 'rt', 'wk', 'par', 'cr', 'wb', 'sla', 'fi', 'sa', 'err', 'hd', 'cl')
  if not v[1] then
    return nil
  end
  local par = text(v[8])
  return {
    id = id, v = tonumber(v[1]), own = text(v[2]), st = v[3], t = v[4], d = v[5], rt = v[6], wk = text(v[7]), par = par,
    cr = tonumber(v[9]), wb = v[10] or par, sla = text(v[11]), fi = text(v[12]), sa = text(v[13]), err = text(v[14]),
    hd = v[15], cl = v[16],
  }
end

local function append_events(id, version, events, schema)
  call('XADD', 'ev:' .. id, string.format('%d-0', version), 's', schema or SCHEMA, 'e', events)
end

-- whether its history is kept for a limited time
local function passes(r)
  return not r.hd and r.rt ~= 'backfill'
end

-- when the run ended; false = it has not, or is to be looked at no more
local function ended(r, at)
  if passes(r) then
    put(scored, 'ended', r.id, at)
  elseif not r.hd then
    put(scored, 'ended|backfill', r.id, at)
  end
end

local function measure(r, state, finished)
  local name = label(r.d)
  add('metrics', 'runs_total|' .. name .. '|' .. state, 1)
  local took = math.max(0, finished - r.cr)
  local base = 'run_latency_seconds|' .. name .. '|'
  for n, bound in ipairs(LATENCY_BOUNDS_MS) do
    if took <= bound then
      add('metrics', base .. 'le|' .. LATENCY_NAMES[n], 1)
      break
    end
  end
  add('metrics', base .. 'sum_ms', took)
  add('metrics', base .. 'count', 1)
end

local function queue_sets(id, before, after)
  if before == 'queued' then
    drop_member('queued', id)
  elseif before and not TERMINAL[before] then
    drop_member('active', id)
  end
  if after == 'queued' then
    add_member('queued', id)
  elseif not TERMINAL[after] then
    add_member('active', id)
  end
end

-- the run of a fire has ended, or goes on after that; one that a backfill restarts is the backfill's
local function live_fires(r, before, after, quiet)
  if TERMINAL[after] then
    drop_member('live:' .. r.t .. ':' .. r.d, r.id)
    drop_member('replaced', r.id)
  elseif TERMINAL[before] and not quiet and r.wb == '' then
    add_member('live:' .. r.t .. ':' .. r.d, r.id)
  end
end

-- a run that a task called has ended: the caller is told, unless that has ended too
local function returned(r, before, after, version)
  drop_member('replaced', r.id)
  local caller = string.match(r.cl, '^%S+')
  local st = call('HGET', 'run:' .. caller, 'st')
  if st and not TERMINAL[st] then
    news[#news + 1] = { caller, r.id, r.wk, before, after, version }
  end
end

-- the run's indexes and counters go from `r.st` to `after`; `quiet` names a backfill that is not told
local function move(r, after, version, quiet)
  local before = r.st
  local i1, i2 = index_keys(r.t, r.d, before)
  local at = place(r)
  unindex(i1, at)
  unindex(i2, at)
  i1, i2 = index_keys(r.t, r.d, after)
  index(i1, at)
  index(i2, at)
  if not r.hd then queue_sets(r.id, before, after) end
  if r.rt == 'scheduled' then live_fires(r, before, after, quiet) end
  if r.rt ~= 'backfill' then
    local counts = 'rc:' .. r.t .. ':' .. r.d
    add(counts, before, -1)
    add(counts, after, 1)
  end
  for watcher in string.gmatch(r.wb, '%S+') do
    add('bfc:' .. watcher, before, -1)
    add('bfc:' .. watcher, after, 1)
    if watcher ~= quiet then
      news[#news + 1] = { watcher, r.id, r.wk, before, after, version }
    end
  end
  if r.cl and TERMINAL[after] then returned(r, before, after, version) end
  r.st = after
end

-- the tasks' counters of watching backfills; `pairs_` is a list of {task, letter}. Instances of mapped tasks (`work[3]`)
-- are not counted, nor is how many there are (`work[]`)
local function counted(task)
  return string.byte(task, -1) ~= 93
end

local function count_tasks(r, pairs_)
  if r.wb == '' or #pairs_ == 0 then
    return
  end
  for first = 1, #pairs_, CHUNK do
    local names = {}
    for n = first, math.min(first + CHUNK - 1, #pairs_) do
      names[#names + 1] = pairs_[n][1]
    end
    local old = call('HMGET', 'tk:' .. r.id, unpack(names))
    for watcher in string.gmatch(r.wb, '%S+') do
      local key = 'bft:' .. watcher
      for n, task in ipairs(names) do
        local was, is = old[n] or 'p', pairs_[first + n - 1][2]
        if counted(task) then
          if was ~= 'p' then add(key, task .. '|' .. was, -1) end
          if is ~= 'p' then add(key, task .. '|' .. is, 1) end
        end
      end
    end
  end
end

-- every task of the run is pending again
local function reset_tasks(r)
  if r.wb ~= '' then
    local old = call('HGETALL', 'tk:' .. r.id)
    for watcher in string.gmatch(r.wb, '%S+') do
      for n = 1, #old, 2 do
        if old[n + 1] ~= 'p' and counted(old[n]) then add('bft:' .. watcher, old[n] .. '|' .. old[n + 1], -1) end
      end
    end
  end
  call('DEL', 'tk:' .. r.id, 'calls:' .. r.id)
end

local function set_tasks(r, pairs_)
  count_tasks(r, pairs_)
  local args = {}
  for _, pair in ipairs(pairs_) do
    args[#args + 1] = pair[1]
    args[#args + 1] = pair[2]
  end
  many('HSET', 'tk:' .. r.id, args)
end

-- a held run belongs to its owner from the start; no backfill watches it
local function hold(run, args)
  for _, value in ipairs({ 'hd', run.own, 'own', run.own, 'wb', '' }) do
    args[#args + 1] = value
  end
  add_member('own:' .. run.own, run.id)
  held[run.own] = held[run.own] or {}
  table.insert(held[run.own], { k = 'born', run_id = run.id, schema = run.schema, events = run.events })
end

-- a queued run; nobody owns it, unless it is held
local function create(run)
  local args = { 'v', '1', 'st', 'queued', 't', run.t, 'd', run.d, 'dv', run.dv, 'rt', run.rt, 'cr', run.cr }
  local function optional(name, value)
    if value and value ~= '' then
      args[#args + 1] = name
      args[#args + 1] = value
    end
  end
  optional('wk', run.wk)
  optional('par', run.par)
  optional('sla', run.sla)
  optional('mar', run.mar)
  optional('bw', run.bw)
  optional('ph', run.ph)
  optional('cl', run.cl)
  optional('by', run.by)
  if run.hd then hold(run, args) end
  call('HSET', 'run:' .. run.id, unpack(args))
  append_events(run.id, 1, run.events, run.schema)
  local at = run.t .. '|' .. run.d
  local group = born[at]
  if not group then
    group = { run.t, run.d, {}, {} }
    born[at] = group
  end
  local ids, ranked = group[3], group[4]
  if not run.hd then ids[#ids + 1] = run.id end
  ranked[#ranked + 1] = '0'
  ranked[#ranked + 1] = place(run)
  if run.sla then timer('sla|' .. run.id, run.sla) end
  if run.wake then timer('wake|' .. run.id, run.wake) end
  if run.rt == 'scheduled' then add_member('live:' .. run.t .. ':' .. run.d, run.id) end
  if run.rt ~= 'backfill' then add('rc:' .. run.t .. ':' .. run.d, 'queued', 1) end
end

-- a terminal run is queued again; `wake` is its timer, or nothing
local function restart(r, events, count, dag_version, quiet, wake)
  local version = r.v + count
  append_events(r.id, version, events)
  reset_tasks(r)
  call('HSET', 'run:' .. r.id, 'v', version, 'st', 'queued', 'dv', dag_version)
  call('HDEL', 'run:' .. r.id, 'sa', 'fi', 'err', 'sm')
  if wake then timer('wake|' .. r.id, wake) end
  ended(r, false)
  r.sa, r.fi, r.err = '', '', ''
  move(r, 'queued', version, quiet)
  r.v = version
  feed[#feed + 1] = { r.id, version, 'queued' }
end

-- which runs of a window a reprocess policy restarts
local function restarts(policy, state)
  if policy == 'completed' then
    return TERMINAL[state]
  end
  return policy == 'failed' and TERMINAL[state] and state ~= 'succeeded'
end

-- {status, rest} of an idempotency record: nil when the key is free
local function stored(idem)
  if not idem then
    return nil
  end
  local record = call('GET', 'idem:' .. idem[1])
  if not record then
    return nil
  end
  local cut = string.find(record, '\n', 1, true)
  if string.sub(record, 1, cut - 1) ~= idem[2] then
    return 'conflict', ''
  end
  return 'replayed', string.sub(record, cut + 1)
end

local function store(idem, rest)
  if idem then
    call('SET', 'idem:' .. idem[1], idem[2] .. '\n' .. rest, 'PX', REPLY_TTL_MS)
  end
end

local function flush_born()
  for _, group in pairs(born) do
    local t, d, ids, ranked = group[1], group[2], group[3], group[4]
    many('SADD', 'queued', ids)
    local of = 'i:' .. lists_of(t, d)
    for _, key in ipairs({ of, of .. ':d:' .. d, index_keys(t, d, 'queued') }) do
      many('ZADD', key, ranked)
    end
  end
end

local function flush_members()
  for key, of in pairs(members) do
    local adds, drops = {}, {}
    for member, present in pairs(of) do
      local list = present and adds or drops
      list[#list + 1] = member
    end
    many('SADD', key, adds)
    many('SREM', key, drops)
  end
end

local function flush_scored()
  for key, of in pairs(scored) do
    local adds, drops = {}, {}
    for member, score in pairs(of) do
      if score then
        adds[#adds + 1] = score
        adds[#adds + 1] = member
      else
        drops[#drops + 1] = member
      end
    end
    many('ZADD', key, adds)
    many('ZREM', key, drops)
  end
end

-- under which name a metric is counted: once there are very many, new DAGs and blueprints have one in common
local function name_of(field)
  local first = string.match(field, '^[^|]*|([^|]*)')
  if string.sub(field, 1, 5) == 'http|' or not first or OF_NOBODY[first] or call('HEXISTS', 'metrics', field) == 1 then
    return field
  end
  -- a new bucket of a histogram that is kept by name: elsewhere it would be missing here, and be one too many there
  local base = string.match(field, '^(.*|)le|[^|]*$')
  if base and call('HEXISTS', 'metrics', base .. 'count') == 1 then
    return field
  end
  return (string.gsub(field, '|[^|]*', '|other', 1))
end

-- of: metric field -> increment
local function count_all(of)
  local full = call('HLEN', 'metrics') >= METRICS_MAX
  for field, n in pairs(of) do
    if n ~= 0 then call('HINCRBY', 'metrics', full and name_of(field) or field, n) end
  end
end

local function flush_deltas()
  for key, of in pairs(deltas) do
    if key == 'metrics' then
      count_all(of)
    else
      for field, delta in pairs(of) do
        if delta ~= 0 and call('HINCRBY', key, field, delta) == 0 then call('HDEL', key, field) end
      end
    end
  end
end

-- news of windows: to the inbox of the backfill's owner, or to the scheduler when nobody owns it
local function flush_news()
  local owners, inboxes, woken = {}, {}, {}
  for _, n in ipairs(news) do
    local backfill = n[1]
    local owner = owners[backfill]
    if owner == nil then
      owner = call('HGET', 'run:' .. backfill, 'own') or ''
      -- one that an archive has hears nothing any more
      if owner == '' and call('EXISTS', 'run:' .. backfill) == 0 then woken[backfill] = true end
      owners[backfill] = owner
    end
    if owner ~= '' then
      inboxes[owner] = inboxes[owner] or {}
      table.insert(inboxes[owner], {
        k = 'window', run_id = backfill, child = n[2], window_key = n[3], before = n[4], after = n[5], version = n[6],
      })
    elseif not woken[backfill] then
      woken[backfill] = true
      sched[#sched + 1] = { k = 'wake', run_id = backfill, reason = 'window' }
    end
  end
  for owner, items in pairs(inboxes) do
    call('XADD', 'in:' .. owner, '*', 'e', cjson.encode(items))
  end
end

-- one entry for each owner, whatever was created
local function flush_held()
  for owner, items in pairs(held) do
    call('XADD', 'in:' .. owner, '*', 'e', cjson.encode(items))
  end
end

local function flush()
  flush_born()
  flush_held()
  flush_members()
  flush_scored()
  flush_deltas()
  flush_news()
  if #sched > 0 then call('XADD', 'sched', 'MAXLEN', '~', SCHED_LENGTH, '*', 'e', cjson.encode(sched)) end
  if #feed > 0 then call('XADD', 'feed', 'MAXLEN', '~', FEED_LENGTH, '*', 'e', cjson.encode(feed)) end
end

local function read_row(id)
  local values = call('HMGET', 'run:' .. id, unpack(ROW))
  if not values[1] then
    return false
  end
  values[#ROW + 1] = id
  return values
end
