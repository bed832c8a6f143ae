-- What a process holds, in the order of its claims, from one claim to another (a number or +inf).
-- KEYS: held, messages. ARGV: from, to, at most messages, at most bytes. Returns id, claim, text ('' if there is none).
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local rows, room = {}, tonumber(ARGV[4])
for i = 1, #found, 2 do
  local text = redis.call('HGET', KEYS[2], found[i]) or ''
  rows[#rows + 1] = found[i]
  rows[#rows + 1] = found[i + 1]
  rows[#rows + 1] = text
  room = room - #text
  if room < 0 then
    break
  end
end
return rows
