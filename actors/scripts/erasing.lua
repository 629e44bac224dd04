-- Second prelude: what the scripts that remove runs share.

-- output of attempts, as far as the run's events name them
local function erase_logs(r)
  for _, entry in ipairs(call('XRANGE', 'ev:' .. r.id, '-', '+')) do
    local read, events = pcall(cjson.decode, entry[2][4])
    for _, event in ipairs(read and events or {}) do
      if event.task and event.attempt then call('UNLINK', 'log:' .. r.id .. ':' .. event.task .. ':' .. event.attempt) end
    end
  end
end

-- a definition that is named by its content is made again when it is wanted
local function collect(r)
  if string.find(r.d, '^@flow/') and call('EXISTS', 'rc:' .. r.t .. ':' .. r.d) == 0 then
    call('UNLINK', 'dag:' .. r.t .. ':' .. r.d, 'dagv:' .. r.t .. ':' .. r.d)
  end
end

local function erase(r)
  if not r.hd then erase_logs(r) end
  call('UNLINK', 'run:' .. r.id, 'ev:' .. r.id, 'tk:' .. r.id, 'ln:' .. r.id, 'calls:' .. r.id)
  local of, at = 'i:' .. lists_of(r.t, r.d), place(r)
  for _, key in ipairs({ of, of .. ':d:' .. r.d, index_keys(r.t, r.d, r.st) }) do
    unindex(key, at)
  end
  put(scored, 'timers', 'wake|' .. r.id, false)
  put(scored, 'timers', 'sla|' .. r.id, false)
  ended(r, false)
  if r.own ~= '' then drop_member('own:' .. r.own, r.id) end
  if r.rt ~= 'backfill' then add('rc:' .. r.t .. ':' .. r.d, r.st, -1) end
end
