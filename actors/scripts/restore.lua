-- list of {run_id, row as pairs, events {{version, schema, events}, …}, tasks as pairs} -> how many are here again
--
-- One that is here, or whose window has another run by now, is left alone. A run that a task called keeps its window to
-- itself.

local function restore(id, events, tasks)
  for _, batch in ipairs(events) do
    append_events(id, batch[1], batch[3], batch[2])
  end
  many('HSET', 'tk:' .. id, tasks)
  local r = row(id)
  local of, at = 'i:' .. lists_of(r.t, r.d), place(r)
  for _, key in ipairs({ of, of .. ':d:' .. r.d, index_keys(r.t, r.d, r.st) }) do
    index(key, at)
  end
  add('rc:' .. r.t .. ':' .. r.d, r.st, 1)
  if r.wk ~= '' and not r.cl then call('HSET', 'win:' .. r.t .. ':' .. r.d, r.wk, r.id) end
  if not call('HGET', 'run:' .. id, 'hr') then ended(r, r.fi ~= '' and r.fi or r.cr) end
end

local function fields(pairs_)
  local of = {}
  for n = 1, #pairs_, 2 do
    of[pairs_[n]] = pairs_[n + 1]
  end
  return of
end

local restored = 0
for _, each in ipairs(cmsgpack.unpack(ARGV[1])) do
  local of = fields(each[2])
  local taken = of.wk and not of.cl and call('HEXISTS', 'win:' .. of.t .. ':' .. of.d, of.wk) == 1
  if call('EXISTS', 'run:' .. each[1]) == 0 and not taken then
    call('HSET', 'run:' .. each[1], unpack(each[2]))
    restore(each[1], each[3], each[4])
    restored = restored + 1
  end
end
flush()
return restored
