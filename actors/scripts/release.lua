-- list of {run_id, version} -> list of those that are gone: an archive has them
--
-- A run that a task called stays until the caller has ended, or calls another: whoever has the caller next reads it.
-- A backfill goes before its windows: nobody finds it any more, and `disband` takes it from them step by step.

-- "tenant:dag" -> sets of windows that backfills which are here keep as they were
local keeping = {}
local function kept_sets(at)
  if not keeping[at] then
    keeping[at] = {}
    for _, backfill in ipairs(call('HVALS', 'bfw:' .. at)) do
      if call('EXISTS', 'bfk:' .. backfill) == 1 then table.insert(keeping[at], 'bfk:' .. backfill) end
    end
  end
  return keeping[at]
end

local function kept(r)
  for _, key in ipairs(kept_sets(r.t .. ':' .. r.d)) do
    if call('SISMEMBER', key, r.id) == 1 then
      return true
    end
  end
  return false
end

-- whether the task that called the run may still look how it ended
local function awaited(r)
  local caller, task = string.match(r.cl or '', '^(%S+) (.*)$')
  local st = caller and call('HGET', 'run:' .. caller, 'st')
  return st and not TERMINAL[st] and call('HGET', 'calls:' .. caller, task) == r.id
end

-- whether it stands for its window; one that a task called keeps that to itself
local function windowed(r)
  return r.wk ~= '' and not r.cl
end

local function releasable(r, version)
  if not r or r.v ~= version or not TERMINAL[r.st] or r.hd or hidden(r.d) then
    return false
  end
  return r.rt == 'backfill' or (r.wb == '' and not (windowed(r) and kept(r)) and not awaited(r))
end

-- nothing finds it any more: a backfill by what it is over, nor by what it `was` over before it became wider
local function forget(r, key, was)
  for wk in string.gmatch(was .. '\n' .. r.wk, '[^\n]+') do
    if call('HGET', key, wk) == r.id then call('HDEL', key, wk) end
  end
end

local function release(r)
  local at, was = r.t .. ':' .. r.d, text(call('HGET', 'run:' .. r.id, 'was'))
  erase(r)
  add('metrics', r.rt == 'backfill' and 'archive_backfills' or 'archive_runs', 1)
  if windowed(r) then
    forget(r, (r.rt == 'backfill' and 'bfw:' or 'win:') .. at, was)
    add('dag:' .. at, 'archived', 1)
  end
  if r.rt == 'backfill' then
    put(scored, 'ended|backfill', r.id, false)
    add_member('released', r.id)
  end
end

local gone = {}
for _, each in ipairs(cmsgpack.unpack(ARGV[1])) do
  local r = row(each[1])
  if releasable(r, each[2]) then
    release(r)
    gone[#gone + 1] = r.id
  end
end
flush()
return gone
