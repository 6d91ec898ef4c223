-- Posts the bodies of a file, one a line, in turn, and prints what came back as one line of JSON.
--
--   wrk … -s wrk.lua URL -- FILE

local threads = {}

function setup(thread)
   table.insert(threads, thread)
   thread:set("number", #threads)
end

function init(args)
   bodies = {}
   for line in io.lines(args[1]) do
      table.insert(bodies, line)
   end
   place = number * 31 % #bodies -- so that threads do not ask the same at the same time
   answered, refused, other = 0, 0, 0
end

function request()
   place = place % #bodies + 1
   return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[place])
end

function response(status)
   if status == 200 then
      answered = answered + 1
   elseif status == 503 then
      refused = refused + 1
   else
      other = other + 1
   end
end

function done(summary, latency, requests)
   local counts = { answered = 0, refused = 0, other = 0 }
   for _, thread in ipairs(threads) do
      for name in pairs(counts) do
         counts[name] = counts[name] + thread:get(name)
      end
   end
   local errors = summary.errors
   io.write(string.format(
      '{"seconds": %f, "answered": %d, "refused_503": %d, "other_status": %d, "timeouts": %d, "broken": %d, '
         .. '"p50_ms": %f, "p90_ms": %f, "p99_ms": %f, "most_ms": %f}\n',
      summary.duration / 1e6, counts.answered, counts.refused, counts.other, errors.timeout,
      errors.connect + errors.read + errors.write,
      latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3
   ))
end
