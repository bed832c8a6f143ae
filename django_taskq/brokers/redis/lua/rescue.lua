-- Put back what a process holds under claims above one number, up to another.
-- KEYS: ready, messages, held, holders, wake, fence. ARGV: process, after, up to (a number or +inf), mark, at most.
-- Returns how many: fewer than "at most" means that it is done.
--
-- The mark (the first byte of a text) is kept unless one is given; the priority stands in the text, behind it.
if ARGV[3] ~= '+inf' and tonumber(redis.call('GET', KEYS[6]) or 0) < tonumber(ARGV[3]) then
  -- A take that was given up on may still be under way to us: it must find out, or nobody would know what it took.
  -- DEL is allowed where memory is full; what follows a script's first write then is, too.
  redis.call('DEL', KEYS[6])
  redis.call('SET', KEYS[6], ARGV[3], 'EX', 86400)
end
local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[5])
if #ids > 0 then
  redis.call('ZREM', KEYS[3], unpack(ids))
  local texts = redis.call('HMGET', KEYS[2], unpack(ids))
  local places, marked = {}, {}
  for i = 1, #ids do
    local text = texts[i] or ''
    places[#places + 1] = -(tonumber(string.sub(text, 2, 5)) or 0)
    places[#places + 1] = ids[i]
    if ARGV[4] ~= '' and text ~= '' then
      marked[#marked + 1] = ids[i]
      marked[#marked + 1] = ARGV[4] .. string.sub(text, 2)
    end
  end
  redis.call('ZADD', KEYS[1], unpack(places))
  if #marked > 0 then
    redis.call('HSET', KEYS[2], unpack(marked))
  end
  if redis.call('EXISTS', KEYS[5]) == 0 then
    redis.call('LPUSH', KEYS[5], '1')
  end
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('ZREM', KEYS[4], ARGV[1])
end
return #ids
