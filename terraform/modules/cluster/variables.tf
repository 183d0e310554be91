variable "name" {
  description = "Name of the cluster and prefix of everything that belongs to it."
  type        = string
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes, in standard support."
  type        = string

  # 1.34 leaves standard support on 2 December 2026.
  validation {
    condition     = can(regex("^1\\.(3[5-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "A minor version in standard support on EKS is required, such as 1.36. The oldest is 1.35."
  }
}

variable "deletion_protection" {
  description = "Reject the deletion of the cluster."
  type        = bool
}

variable "subnet_ids" {
  description = "Private subnets with a route to the internet, in at least two zones."
  type        = list(string)
}

variable "admin_arns" {
  description = "IAM roles and users that administer the cluster."
  type        = set(string)

  validation {
    condition     = length(var.admin_arns) > 0 && !strcontains(join(" ", var.admin_arns), ":sts:")
    error_message = "At least one IAM role or user is required, or nobody can deploy. For an assumed role use the ARN of the role (iam), not of the session (sts)."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of the service."
  type        = string
}

variable "namespace_access" {
  description = "IAM roles and users with access to the namespace: ARN to name of an EKS access policy."
  type        = map(string)

  # An unknown name fails after the cluster was created.
  validation {
    condition     = alltrue([for policy in values(var.namespace_access) : contains(["AmazonEKSAdminPolicy", "AmazonEKSEditPolicy", "AmazonEKSViewPolicy"], policy)])
    error_message = "The access policies of a namespace are AmazonEKSAdminPolicy, AmazonEKSEditPolicy and AmazonEKSViewPolicy."
  }
}

variable "api_cidrs" {
  description = "IPv4 ranges that reach the Kubernetes API from the internet. Empty: it is reachable from the VPC only."
  type        = set(string)

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, false)])
    error_message = "IPv4 ranges of /8 or smaller are required, such as 203.0.113.0/24."
  }
}

variable "log_retention_days" {
  description = "Days that the control plane's logs are kept."
  type        = number
}
