-- Seconds since the oldest waiting message could first have run, as text; nothing when none is readable.
-- KEYS: ready, messages. ARGV: at most bytes.
-- Within one priority the first id is the oldest, so only the first of each is looked at.
local oldest
local room = tonumber(ARGV[1])
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
for _ = 1, 300 do  -- there are 201 priorities
  if #first == 0 or room < 0 then
    break
  end
  local text = redis.call('HGET', KEYS[2], first[1]) or ''
  room = room - #text
  local is_read, fields = pcall(cjson.decode, string.sub(text, 6))
  if is_read and type(fields) == 'table' then
    local at = type(fields[11]) == 'number' and fields[11] or fields[10]
    if type(at) == 'number' and (oldest == nil or at < oldest) then
      oldest = at
    end
  end
  first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. first[2], '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
end
if oldest then
  local now = redis.call('TIME')
  return string.format('%.6f', now[1] + now[2] / 1000000 - oldest)
end
return false
