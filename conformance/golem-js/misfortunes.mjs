// The requestor's daemon is started anew half-way, then a provider dies: what runs goes on, what is
// dead is an error.
import { check, main, misfortune, order } from "./common.mjs";

await main(async (glm) => {
  const network = await glm.createNetwork({ id: "misfortunes", ip: "10.14.0.0/24" });
  const [first, second] = await Promise.all([1, 2].map(() => glm.oneOf({ order: order(network) })));
  const [one, two] = [await first.getExeUnit(), await second.getExeUnit()];
  const ping = async () => String((await one.run(`ping -c 2 -w 20 ${two.getIp()}`)).stdout);
  check("they reach each other", (await ping()).includes(" 0% packet loss"));
  await misfortune("restart requestor");
  check("also after a restart of the requestor", (await ping()).includes(" 0% packet loss"));
  const failing = two.run("sleep 1000").then((result) => result.message, (error) => error.message);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await misfortune(`kill ${two.provider.id}`);
  const message = String(await failing);
  check("a dead provider is an error that says so", message.includes("cannot be reached"));
  check("the other one runs on", String((await one.run("echo still here")).stdout).includes("still here"));
  await misfortune("start providers");
  await Promise.all([first, second].map((rental) => rental.stopAndFinalize().catch(() => {})));
  await glm.destroyNetwork(network);
});
