-- Dead letters, newest first. KEYS: dead, letters. ARGV: rank of the first, at most letters, at most bytes of each.
-- Returns id, POSIX time, "reason LF text".
local found = redis.call('ZREVRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
local rows = {}
for i = 1, #found, 2 do
  rows[#rows + 1] = found[i]
  rows[#rows + 1] = found[i + 1]
  rows[#rows + 1] = string.sub(redis.call('HGET', KEYS[2], found[i]) or '', 1, ARGV[3])
end
return rows
