"""The transformers side of samplers.mjs and samplers-vs-transformers.mjs: builds logits processors by the names that
generation uses, `temperature=1.5,top_p=0.9`."""

from transformers.generation import logits_process as processes

WARPERS = {
    "temperature": processes.TemperatureLogitsWarper,
    "top_h": processes.TopHLogitsWarper,
    "top_k": lambda k: processes.TopKLogitsWarper(int(k)),
    "top_p": processes.TopPLogitsWarper,
    "min_p": processes.MinPLogitsWarper,
    "typical": lambda mass: processes.TypicalLogitsWarper(mass),
    "epsilon": processes.EpsilonLogitsWarper,
    "eta": lambda epsilon: processes.EtaLogitsWarper(epsilon),
}


def pipeline(text):
    steps = [step.split("=") for step in text.split(",") if step]
    return processes.LogitsProcessorList([WARPERS[name](float(value)) for name, value in steps])
