-- {tenant, dag_id, state, run_type, parent, cursor, limit, scan_limit, kind}, '' = any; kind '' = runs of DAGs -> {next cursor or '', rows}
--
-- Newest first. Reads at most scan_limit entries of the narrowest index, so a rare match gives a short page.

local p = cmsgpack.unpack(ARGV[1])
local t, d, st, rt, parent, cursor, limit, scan, kind = unpack(p)
local key
local of = kind ~= '' and kind .. ':' .. t or t
if parent ~= '' then
  key = 'i:p:' .. parent
elseif d ~= '' then
  key = 'i:' .. of .. ':d:' .. d .. (st ~= '' and ':s:' .. st or '')
else
  key = 'i:' .. of .. (st ~= '' and ':s:' .. st or '')
end

local function wanted(r)
  return r and r[4] == t and (d == '' or r[5] == d) and (st == '' or r[3] == st) and (rt == '' or r[7] == rt)
end

local rows, seen = {}, 0
local from = cursor == '' and '+' or '(' .. cursor
while true do
  local ids = call('ZREVRANGEBYLEX', key, from, '-', 'LIMIT', 0, limit + 1)
  for n, id in ipairs(ids) do
    if #rows == limit or seen == scan then
      return { cursor, rows }
    end
    local held = string.match(id, '|(.*)$')
    local r = read_row(held or id) or read_row(string.sub(id, 5))
    if wanted(r) then rows[#rows + 1] = r end
    cursor, seen = id, seen + 1
  end
  if #ids <= limit then
    return { '', rows }
  end
  from = '(' .. cursor
end
