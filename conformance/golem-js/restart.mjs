// The requestor's daemon is started anew while a pool has one rental and bargains about others: what was
// bargained before is good for an agreement after.
import { check, main, misfortune, order } from "./common.mjs";

// The search of a pool ends with the first refused connection, as an exception that nobody can catch.
process.on("uncaughtException", (error) => console.log(`not caught: ${error.message}`));

await main(async (glm) => {
  const network = await glm.createNetwork({ id: "restart", ip: "10.16.0.0/24" });
  const pool = await glm.manyOf({ poolSize: { min: 1, max: 2 }, order: order(network) });
  const first = await pool.acquire();
  const one = await first.getExeUnit();
  const drafts = pool.getProposalPool();
  for (let i = 0; i < 300 && drafts.availableCount() === 0; i++) await new Promise((done) => setTimeout(done, 100));
  check("another provider has answered", drafts.availableCount() > 0);
  await misfortune("restart requestor");
  const second = await pool.acquire(60_000);
  const two = await second.getExeUnit();
  check("an agreement is made of what it said before", two.provider.id !== one.provider.id);
  const ping = String((await one.run(`ping -c 3 -w 20 ${two.getIp()}`)).stdout);
  check("both are in the network", ping.includes(" bytes from "));
  await pool.release(first);
  await pool.release(second);
  await pool.drainAndClear();
  // With its search the pool has forgotten its demand.
  const market = glm.services.yagna.market;
  for (const { demandId } of await market.getDemands()) await market.unsubscribeDemand(demandId);
  await glm.destroyNetwork(network);
});
