// Things go wrong, or are given up, at every stage: what is left works on.
import { check, main, order } from "./common.mjs";

const says = (promise) => promise.then(() => "nothing went wrong", (error) => String(error.message ?? error));

async function giveUp(glm) {
  const nobody = order(undefined, { capabilities: ["teleport"] });
  const told = await says(glm.oneOf({ order: nobody, signalOrTimeout: 3000 }));
  check(`a search that finds nobody ends when it shall: ${told}`, !told.includes("nothing went wrong"));
  const abort = new AbortController();
  const searching = says(glm.oneOf({ order: nobody, signalOrTimeout: abort.signal }));
  setTimeout(() => abort.abort(), 500);
  check("a search is given up", (await searching) !== "nothing went wrong");
  check("no demand stays behind", (await glm.services.yagna.market.getDemands()).length === 0);
}

async function commands(exe) {
  const slow = await says(exe.run("sleep 1000", { signalOrTimeout: 1500 }));
  check(`a command that takes too long is given up: ${slow}`, slow !== "nothing went wrong");
}

async function files(exe) {
  const missing = await says(exe.downloadData("/tmp/no-such-file").then((r) => r.result === "Error" && Promise.reject(r)));
  check("a file that is not there is an error", missing !== "nothing went wrong");
  const refused = await says(exe.transfer("http://127.0.0.1:9/no", "container:/tmp/no").then((r) => r.result === "Error" && Promise.reject(r)));
  check(`so is a URL that nobody answers: ${refused.slice(0, 120)}`, refused !== "nothing went wrong");
  check("commands go on after it", String((await exe.run("echo on")).stdout) === "on\n");
}

async function step(glm) {
  // Step by step, as the package's own example of low-level calls has it.
  const allocation = await glm.payment.createAllocation({ budget: 1, expirationSec: 1800 });
  const { demand, market } = order(undefined);
  const details = await glm.market.buildDemandDetails(demand, market, allocation);
  const draft = await new Promise((resolve, reject) => {
    const wanted = { demandSpecification: details, pricing: market.pricing };
    const search = glm.market.collectDraftOfferProposals(wanted).subscribe({
      next: (proposals) => (resolve([proposals].flat()[0]), setTimeout(() => search.unsubscribe())),
      error: reject,
    });
  });
  const agreement = await glm.market.proposeAgreement(draft);
  check("an agreement step by step", agreement.getState() === "Approved");
  const [one, two] = [await glm.activity.createActivity(agreement), await glm.activity.createActivity(agreement)];
  check("two activities under it", one.id !== two.id);
  await glm.activity.destroyActivity(one);
  await glm.market.terminateAgreement(agreement, "enough");
  const ended = await glm.market.fetchAgreement(agreement.id);
  check("ended by its owner", ended.getState() === "Terminated");
  const state = async () => (await glm.services.activityApi.getActivity(two.id)).getState();
  for (let i = 0; i < 100 && (await state()) !== "Terminated"; i++) await new Promise((done) => setTimeout(done, 100));
  check("what runs ends with it", (await state()) === "Terminated");
  const refused = await says(glm.activity.createActivity(agreement));
  check(`nothing more begins under it: ${refused.slice(0, 100)}`, refused !== "nothing went wrong");
  const again = await says(glm.market.terminateAgreement(agreement));
  check("ending it again is no harm, or said", typeof again === "string");
  return allocation;
}

await main(async (glm) => {
  await giveUp(glm);
  const rental = await glm.oneOf({ order: order(undefined) });
  const exe = await rental.getExeUnit();
  await files(exe);
  await commands(exe);
  await rental.destroyExeUnit();
  const next = await rental.getExeUnit();
  check("the same rental, another activity", next.activity.id !== exe.activity.id);
  check("runs", String((await next.run("echo anew")).stdout) === "anew\n");
  const dead = await says(exe.run("echo dead"));
  check(`the old one does not: ${dead.slice(0, 100)}`, dead !== "nothing went wrong");
  await Promise.all([rental.stopAndFinalize(), rental.stopAndFinalize()]);
  check("ended twice at once", (await rental.fetchAgreementState()) === "Terminated");
  const allocation = await step(glm);
  const invoices = glm.services.yagna.payment;
  for (let i = 0; i < 100; i++) {
    const all = await invoices.getInvoices();
    const open = all.filter((invoice) => invoice.status === "RECEIVED");
    for (const { invoiceId, amount } of open) {
      await invoices.acceptInvoice(invoiceId, { totalAmountAccepted: amount, allocationId: allocation.id });
    }
    if (all.length === 2 && open.length === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await glm.payment.releaseAllocation(allocation);
});
