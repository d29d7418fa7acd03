"""Ways to the Gram matrix: (model, inputs, targets, memory budget) -> float32 [N, N]."""

from stiffness import class_mean_cosine, gradient_gram


def ours(model, inputs, targets, budget):
    return gradient_gram(model, inputs, targets, memory_budget=budget)


def linear_time(model, inputs, targets, budget):
    return class_mean_cosine(model, inputs, targets, memory_budget=budget)


METHODS = {"ours": ours, "class_mean_cosine": linear_time}
