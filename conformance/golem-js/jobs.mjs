// Jobs and deployments, the package's experimental half; one job fails, one is cancelled.
import { GolemDeploymentBuilder, JobManager } from "@golem-sdk/golem-js/experimental";
import { check, main, order } from "./common.mjs";

async function jobs() {
  const manager = new JobManager();
  await manager.init();
  const good = manager.createJob(order(undefined));
  good.startWork(async (exe) => String((await exe.run("echo $((6 * 7))")).stdout).trim());
  check("a job has a result", (await good.waitForResult()) === "42");
  const bad = manager.createJob(order(undefined));
  bad.startWork(async () => {
    throw new Error("this work fails");
  });
  const failed = await bad.waitForResult().then(() => undefined, (error) => error.message);
  check("a job that fails says so", String(failed ?? bad.error?.message).includes("this work fails"));
  const cancelled = manager.createJob(order(undefined, { capabilities: ["teleport"] }));
  cancelled.startWork(async () => {});
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await cancelled.cancel();
  check("a job that searches is cancelled", cancelled.state === "rejected");
  await manager.close();
}

async function deployment(glm) {
  const builder = new GolemDeploymentBuilder(glm);
  builder.createNetwork("default", { id: "deployed", ip: "10.17.0.0/24" });
  const pool = { ...order(undefined, { capabilities: ["vpn"] }), deployment: { replicas: 1, network: "default" } };
  const deployed = builder.createResourceRentalPool("web", pool).createResourceRentalPool("db", pool).getDeployment();
  await deployed.start();
  const rentals = await Promise.all(["web", "db"].map((name) => deployed.getResourceRentalPool(name).acquire()));
  const [web, db] = await Promise.all(rentals.map((rental) => rental.getExeUnit()));
  const ping = String((await web.run(`ping -c 3 -w 20 ${db.getIp()}`)).stdout);
  check("the parts of a deployment reach each other", ping.includes(" 0% packet loss"));
  await deployed.stop();
  check("and are stopped together", deployed.getState() === "STOPPED");
  // A deployment leaves its allocation behind.
  const payment = glm.services.yagna.payment;
  for (const { allocationId } of await payment.getAllocations()) await payment.releaseAllocation(allocationId);
}

await main(async (glm) => {
  await jobs();
  await deployment(glm);
});
