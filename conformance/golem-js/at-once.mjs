// As many rentals at once, for one network, as there are providers: each gets one of its own.
import { check, main, order } from "./common.mjs";

const COUNT = Number(process.env.CONFORMANCE_PROVIDERS);

await main(async (glm) => {
  const network = await glm.createNetwork({ id: "at-once", ip: "10.12.0.0/24" });
  const rent = async (network) => {
    const rental = await glm.oneOf({ order: order(network) });
    return { rental, exe: await rental.getExeUnit() };
  };
  const rented = await Promise.all(Array.from({ length: COUNT }, () => rent(network)));
  const providers = new Set(rented.map(({ exe }) => exe.provider.id));
  check("each on a provider of its own", providers.size === COUNT);
  const [first, ...others] = rented.map(({ exe }) => exe);
  for (const other of others) {
    const result = await first.run(`ping -c 1 -w 20 ${other.getIp()}`);
    if (!String(result.stdout).includes(" 0% packet loss")) throw new Error(String(result.stdout));
  }
  check("all are reached from the first", true);
  await Promise.all(rented.map(({ rental }) => rental.stopAndFinalize()));
  // What has ended is to be had again; golem-js wants another network for that.
  const next = await glm.createNetwork({ id: "again", ip: "10.13.0.0/24" });
  const again = await rent(next);
  check("a provider that was used is rented again", providers.has(again.exe.provider.id));
  await again.rental.stopAndFinalize();
  await glm.destroyNetwork(next);
  await glm.destroyNetwork(network);
});
