// Pools, batches, volumes and scans: what the examples of golem-js use beside rentals one by one.
import { check, main, order } from "./common.mjs";

const COUNT = Math.min(2, Number(process.env.CONFORMANCE_PROVIDERS));

function offers(glm) {
  const wanted = glm.market.buildScanSpecification({ workload: { capabilities: ["vpn"], runtime: { name: "vm" } } });
  return new Promise((resolve, reject) => {
    const seen = new Set();
    const limit = setTimeout(() => reject(new Error(`${seen.size} providers seen`)), 60_000);
    const scan = glm.market.scan(wanted).subscribe({
      next: (offer) => {
        seen.add(offer.provider.id);
        if (seen.size < COUNT) return;
        clearTimeout(limit);
        setTimeout(() => scan.unsubscribe());
        resolve(seen);
      },
      error: reject,
    });
  });
}

async function batches(exe) {
  const results = await exe
    .beginBatch()
    .uploadJson({ hello: "golem" }, "/tmp/in.json")
    .run("cat /tmp/in.json")
    .run("/bin/echo", ["a", "b c"])
    .end();
  check("a batch answers command by command", String(results[1].stdout).includes("golem") && String(results[2].stdout) === "a b c\n");
  const stream = await exe.beginBatch().run("echo one").run("echo two >&2; exit 5").run("echo never").endStream();
  const seen = [];
  const error = await new Promise((resolve) =>
    stream.subscribe({ next: (result) => seen.push(result), error: resolve, complete: () => resolve(undefined) }),
  );
  const text = seen.map((result) => `${result.stdout ?? ""}${result.stderr ?? ""}`).join("");
  const failed = error !== undefined || seen.some((result) => result.result === "Error");
  check("a batch that fails half-way says so and goes no further", failed && text.includes("one") && !text.includes("never"));
  check("the next batch runs", String((await exe.run("echo still here")).stdout) === "still here\n");
}

await main(async (glm) => {
  check("offers are seen by a scan", (await offers(glm)).size >= COUNT);
  const network = await glm.createNetwork({ id: "many", ip: "10.15.0.0/24" });
  const setup = (exe) => exe.run("echo ready > /tmp/ready").then(() => {});
  const pool = await glm.manyOf({ poolSize: { min: 1, max: COUNT }, order: order(network), setup });
  const numbers = Array.from({ length: 3 * COUNT }, (_, i) => i);
  const work = (n) =>
    pool.withRental(async (rental) => {
      const exe = await rental.getExeUnit();
      return { text: String((await exe.run(`cat /tmp/ready; echo ${n} squared is $((${n} * ${n}))`)).stdout), ip: exe.getIp() };
    });
  const done = await Promise.all(numbers.map(work));
  check("a pool does more work than it has rentals", done.every(({ text }, n) => text === `ready\n${n} squared is ${n * n}\n`));
  check("with no more of them than it may have", new Set(done.map(({ ip }) => ip)).size <= COUNT);
  await pool.withRental(async (rental) => batches(await rental.getExeUnit()));
  await pool.drainAndClear();
  await glm.destroyNetwork(network);
  const volumes = { data: { sizeGib: 0.1, path: "/data" } };
  const rental = await glm.oneOf({ order: order(undefined), volumes });
  const exe = await rental.getExeUnit();
  const kept = await exe.run("echo kept > /data/file && cat /data/file");
  check(`a volume is there to be written ${kept.message ?? ""}`.trimEnd(), String(kept.stdout) === "kept\n");
  await rental.stopAndFinalize();
});
