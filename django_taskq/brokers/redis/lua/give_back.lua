-- Put messages that this process still holds under these claims back to their places.
-- KEYS: ready, held, holders, wake. ARGV: process; id, claim, score; and so on. Returns how many.
local ids = {}
for i = 2, #ARGV, 3 do
  ids[#ids + 1] = ARGV[i]
end
local claims = redis.call('ZMSCORE', KEYS[2], unpack(ids))
local mine, places = {}, {}
for i = 1, #ids do
  if claims[i] == ARGV[3 * i] then
    mine[#mine + 1] = ids[i]
    places[#places + 1] = ARGV[3 * i + 1]
    places[#places + 1] = ids[i]
  end
end
if #mine > 0 then
  redis.call('ZREM', KEYS[2], unpack(mine))  -- frees memory first, as in take.lua
  redis.call('ZADD', KEYS[1], unpack(places))
  if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
  end
  if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('LPUSH', KEYS[4], '1')
  end
end
return #mine
