-- list of run ids -> how many of them were erased

local erased = {}
for _, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  local r = row(id)
  if r and (r.hd or (TERMINAL[r.st] and r.wk == '')) then
    erase(r)
    erased[#erased + 1] = r
  end
end
flush()
for _, r in ipairs(erased) do
  collect(r)
end
return #erased
