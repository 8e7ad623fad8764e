"""What stands under each figure of the notebooks, and for it where it cannot be seen: the captions, by name.

A key is the name of the figure's file. The order within a notebook's block is the order of the figures in it, and so
their numbers. A figure that there is one of for each noise level has one caption, in which {} becomes what its file's
name says after the key: "02_certified_accuracy" is that of 02_certified_accuracy_0.25, too.
"""

from collections.abc import Iterator

CAPTIONS: dict[str, str] = {
    # ---- 00 ----
    "00_attack": "Above: an image, the perturbation enlarged twice on grey, and the image with it. Below: what the "
    "undefended classifier makes of both. The bar of the true class is blue.",
    "00_gradients": "Eight images, and below each the gradient of the loss that an attack would follow, for the "
    "undefended classifier, for the same with its logits times 100, after distillation and behind rounding; each "
    "is scaled to its largest value. Flat grey is a gradient of exactly zero.",
    "00_detector": "How far the answers on squeezed and unsqueezed images differ, without an attack, under one that "
    "does not know the detector, and under one that does. What lies right of the dashed threshold is refused; the "
    "first bar holds all smaller distances, too.",
    "00_before": "The share of images that the attack of the defense's own evaluation does not break, against the "
    "budget. Where the gradient is hidden, the line stays flat: the defense seems to hold at any budget.",
    "00_after": "The share that neither that attack nor the first of those made for the defense breaks. With the "
    "default parameters the flat lines fall, and adversarial training stays nearly where it was.",
    # ---- 01 ----
    "01_paper_cifar10": "Certified accuracy of Cohen et al. on CIFAR-10 against the radius, a line for each of four "
    "noise levels. More noise starts lower and reaches further.",
    "01_attack": "Above: an image, the perturbation enlarged four times on grey, and the image with it. Below: what "
    "the undefended classifier f makes of both. The bar of the true class is blue; both pictures show one digit, "
    "and f changes its mind.",
    "01_noise_levels": "Eight test images as f sees them, without noise in the top row and under more noise in each "
    "row below it, clipped to what a screen can show. On digits the eye finds nothing at σ = 1.",
    "01_votes": "What f answers on a thousand noisy copies of the attacked image, at each noise level. The bar of "
    "the true class is blue.",
    "01_beta_tail": "The Beta distribution behind Clopper and Pearson's bound for 99 of 100 votes. The shaded tail, "
    "enlarged in the corner, holds α; the bound is where it ends.",
    "01_half_space": "The worst classifier with the same probability of A. Left: a half-space across δ, with the "
    "noise around x (solid circles) and around x + δ (dashed). Right: the same along δ, where the move by 0.8 σ "
    "lowers A's share from 0.90 to 0.68.",
    "01_circle": "A classifier of the plane with three classes and a small hole of class B close to x, noise around "
    "x, and the circle that is certified from 100 votes (thin) and from 10,000 (thick). The circle grows with σ "
    "as long as the votes stay in A, and then shrinks to nothing.",
    "01_shares": "The share of the votes that the winner has on each image, sorted, a line for each noise level. "
    "Images above the black line at one half can be certified, and the closer to 1, the larger their radius.",
    "01_certified_accuracy": "Certified accuracy against the radius, a curve for each noise level with its 95 % "
    "interval. With the default parameters little noise starts highest and ends first.",
    "01_two_class": "Certified accuracy from the same votes by two bounds, at two noise levels. Solid: the rest of "
    "the votes goes to one rival. Dashed: the runner-up is bounded, too.",
    "01_training_noise": "Certified accuracy at one testing noise, a curve for the classifier trained at each level.",
    "01_more_votes": "What n votes say about p_A, when nine in ten are for the winner: the more votes, the narrower "
    "the distribution, and the closer the lower bound (dashed) comes to the share that was seen.",
    "01_samples": "Certified accuracy for growing numbers of samples n; the projected curves take the share of the "
    "votes for the truth. With the default parameters the curves with more samples reach further.",
    "01_alpha": "Certified accuracy at four levels of α, from one per cent to one in a hundred thousand. With the "
    "default parameters the curves part only near their ends.",
    "01_radius_vs_pa": "Certified radius in units of σ against the doubt 1 - p_A, on a logarithmic axis, for three "
    "proofs. That of Cohen et al. gives most everywhere and goes on growing; PixelDP's stops at 0.57.",
    # ---- 02 ----
    "02_paper_imagenet": "Certified accuracy of Salman et al. on ImageNet against the radius, for a ResNet-50 "
    "trained on noise, with a white-box and with a black-box denoiser, and as it is: in this order from highest "
    "to lowest.",
    "02_pictures": "Test images clean, noisy and after an MSE, a Stab and a Stab+MSE denoiser, with the classifier's "
    "answer under each. A red frame and a cross mark the answers that are wrong.",
    "02_votes": "What f answers on many noisy copies of one image, without a denoiser and with each of three. The "
    "bar of the true class is blue.",
    "02_shares": "The share of the votes that the winner has on each image, sorted, a line for each method. With the "
    "default parameters the line without a denoiser is lowest, but for the few surest images at its left end.",
    "02_certified_accuracy": "Certified accuracy at σ = {} against the radius, without a denoiser, with three kinds "
    "of them and for a classifier trained on noise, with 95 % intervals. With the default parameters each "
    "denoiser certifies more than none, except at the far end.",
    "02_two_class": "Certified accuracy from the same votes by two bounds, without a denoiser and with the MSE "
    "denoiser. With the default parameters bounding the runner-up does more than the MSE denoiser does.",
    "02_black_box": "Certified accuracy against the radius without a denoiser, with MSE, with denoisers trained on "
    "surrogates, and with one trained on f itself, with 95 % intervals. With the default parameters access to f "
    "certifies most nearly everywhere.",
    # ---- 03 ----
    "03_paper_imagenet": "Published certified accuracy on ImageNet against radius for four methods. One-step "
    "diffusion is highest, 71 per cent at radius 0.5, and meets training on noise (RS) at radius 3; Lee's "
    "score-based and denoised smoothing lie below.",
    "03_path": "One image along the forward process, and below it the noise level of each step in units of the "
    "pixels. A dotted line leads from each noise level of smoothing to the timestep that has it.",
    "03_reverse": "The reverse process in five rows, from pure noise at the top to the digits that were made from it "
    "at the bottom.",
    "03_one_shot": "Test images clean, noisy and denoised in one step, with the classifier's answer under each. A "
    "red frame and a cross mark the answers that are wrong.",
    "03_one_step_at_t": "The same images with the noise of a timestep, and what one step makes of them. The more "
    "noise, the blurrier the estimate.",
    "03_votes": "The image on which the vote is closest, clean, noisy and denoised, and the shares of the votes that "
    "each class gets from the classifier alone and behind the diffusion model. The bar of the true class is blue.",
    "03_methods": "Certified accuracy against radius on the same images, a curve for each method, with bands for the "
    "95 % intervals.",
    "03_noise_levels_certified": "Certified accuracy against radius of one-step diffusion, a curve for each noise "
    "level. One model serves them all.",
    "03_one_step_or_many": "Test images clean, noisy, denoised in one step, by all ancestral steps and by five DDIM "
    "steps, with the classifier's answer under each. The images on the right are answered rightly after one "
    "step and wrongly after all the steps.",
    # ---- 04 ----
    "04_paper_imagenet": "Published certified accuracy on ImageNet against the radius for six training methods. At "
    "radius 0.5 DRT is lowest; from 1.5 on the two ensembles lead, and training on noise alone is last.",
    "04_against_control": "Certified accuracy against the radius, a panel for each method, and in every panel the "
    "control, in its own colour and line style. With the default parameters most methods start lower and end "
    "further right.",
    "04_ensembles": "Certified accuracy against the radius of one network, of the mean of several that were trained "
    "alike, and of several trained as one (DRT), with 95 % intervals.",
    "04_aces": "Natural accuracy of a composition against its certified accuracy at one radius; each point is a "
    "threshold of the selection. Left the certified model alone, right the accurate one.",
    "04_pixeldp": "Certified accuracy against the radius from one record of votes behind a noisy first layer, by "
    "four bounds. The votes are the same, and so is the network.",
    "04_shares": "What adds up to the average certified radius: the radii of all images, sorted, of the control, of "
    "the best method, and of a classifier that always gives the same answer.",
    # ---- 05 ----
    "05_theorems": "Certified accuracy against the radius from one record of votes, read by four theorems. PixelDP's "
    "certifies least, then Li et al., Cohen et al., and most the one that also bounds the runner-up.",
    "05_tight": "How sure the smoothed half-space is of its class as the image moves towards the border, and the "
    "certified radius (dashed). At the radius itself one half is reached, up to the chance of the votes, and not "
    "before.",
    "05_l1": "Certified accuracy against the l1 radius for three noises of the same standard deviation. Gaussian "
    "noise certifies in l2, and so as far in l1.",
    "05_scores": "Certified accuracy against the radius from the same noisy copies: counted votes, and mean "
    "probabilities with two bounds.",
    "05_float": "Votes of a classifier that reads last bits, on a black image and on one that is 0.5 away, with "
    "float32 noise and with noise on a grid. With float32 noise the answer turns around; on the grid it cannot.",
    "05_two_levels": "Certified accuracy against the radius of each of two noise levels alone and of both in one "
    "classifier.",
    "05_deterministic": "Published certified accuracy on CIFAR-10 against the radius, of smoothing and of networks "
    "with a Lipschitz bound, the best of each kind that is listed.",
    # ---- 06 ----
    "06_pictures": "The middle of four open photographs, and under each what the classifier answers to the whole "
    "picture.",
    "06_cliff": "The largest radius that n votes can certify, all of them agreeing, against n on a logarithmic axis, "
    "for three noise levels. The curves rise ever more slowly; the dotted line is the paper's budget of 100.",
    "06_denoised": "The middle of two photographs with noise and after each denoiser, and under it what the "
    "classifier answers to the whole picture; left, what it answers without noise. The blend keeps some grain.",
    "06_certified": "Certified agreement against the radius without a denoiser and with the blended one, with 95 % "
    "intervals over twenty pictures. Both end where the votes of the budget all agree.",
    # ---- 07 ----
    "07_problem": "Above: an image, the perturbation enlarged four times on grey, and the image with it. Below: what "
    "the undefended classifier makes of both. The bar of the true class is blue.",
    "07_prior": "Published certified accuracy on ImageNet against the radius, of six methods that are among the "
    "highest at a radius of 1. The lines cross: none is best everywhere.",
    "07_targets": "Certified accuracy of the team's records against the radius, a curve for each noise level with "
    "its 95 % interval, and the paper's numbers as points. Where sampling stopped at the table's radii, a curve "
    "shows between them only what was proved by then.",
}


def caption(stem: str) -> str:
    """Number and caption, "Figure 3. What is seen.", of the figure whose file has this name, without folder and ending.

    KeyError where neither the name nor the start of it has a caption.
    """
    key = max((key for key in CAPTIONS if f"{stem}_".startswith(f"{key}_")), key=len, default=None)
    if key is None:
        raise KeyError(f"lib/captions.py has no caption for {stem!r}: add one to the block of its notebook")
    rest = stem[len(key) + 1 :]
    number = list(_of_notebook(key[:2])).index(key) + 1
    which = f"σ = {rest}" if rest.replace(".", "").isdigit() else rest
    label = f"Figure {number} ({which})" if rest else f"Figure {number}"
    return f"{label}. {CAPTIONS[key].replace('{}', rest)}"


def _of_notebook(number: str) -> Iterator[str]:
    return (key for key in CAPTIONS if key.startswith(f"{number}_"))
