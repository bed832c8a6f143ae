-- Take the next messages and hold them for a process, in one step.
-- KEYS: ready, messages, held, holders, wake, fence. ARGV: most messages, process, first claim, most bytes.
-- Returns lines of id (36), mark and priority (5), envelope: one reply, which a client reads far faster than many.
--
-- The first write frees memory and so is allowed where memory is full; what follows in the same script then is, too.
-- That is how a full server can be emptied.
local claim = tonumber(ARGV[3])
local fence = redis.call('GET', KEYS[6])
if fence and tonumber(fence) >= claim then
  return ''  -- the answer to this take was given up on, and what it would take would be held by nobody
end
local left, room = tonumber(ARGV[1]), tonumber(ARGV[4])
local lines, n = {}, 0
while left > 0 and room > 0 do
  local count = math.min(left, 100)
  local ids = redis.call('ZRANGE', KEYS[1], 0, count - 1)
  if #ids == 0 then
    break
  end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)
  local holds = {}
  for i = 1, #ids do
    holds[2 * i - 1] = claim
    holds[2 * i] = ids[i]
    claim = claim + 1
  end
  redis.call('ZADD', KEYS[3], unpack(holds))
  local texts = redis.call('HMGET', KEYS[2], unpack(ids))
  for i = 1, #ids do
    local text = texts[i] or ''
    lines[n + 1], lines[n + 2], lines[n + 3] = ids[i], text, '\n'
    n = n + 3
    room = room - #text
  end
  left = left - #ids
  if #ids < count then
    break
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[5])
elseif n > 0 and redis.call('EXISTS', KEYS[5]) == 0 then
  redis.call('LPUSH', KEYS[5], '1')
end
if n > 0 then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[4], now[1] .. '.' .. string.format('%06d', now[2]), ARGV[2])
end
return table.concat(lines)
