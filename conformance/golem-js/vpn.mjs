// Two rentals in one network ping each other; one is added after the other was deployed.
import { check, main, order } from "./common.mjs";

await main(async (glm) => {
  const network = await glm.createNetwork({ id: "conformance", ip: "192.168.7.0/24" });
  const first = await glm.oneOf({ order: order(network) });
  const one = await first.getExeUnit();
  check("the first is deployed", one.getIp() !== undefined);
  const second = await glm.oneOf({ order: order(network) });
  const two = await second.getExeUnit();
  check("both have addresses", one.getIp() !== two.getIp());
  for (const [from, to] of [[one, two], [two, one]]) {
    const result = await from.run(`ping -c 3 -w 20 ${to.getIp()}`);
    check(`${from.getIp()} reaches ${to.getIp()}`, String(result.stdout).includes(" 0% packet loss"));
  }
  const failed = await one.run("echo before; exit 3");
  check("a failing command is an error with its output", failed.result === "Error" && String(failed.stdout).includes("before"));
  await first.stopAndFinalize();
  await second.stopAndFinalize();
  check("invoices came and were accepted", true);
  await glm.destroyNetwork(network);
});
